//! Just enough of Redis's protocol to tell a server under test what to do.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::keeper::PATIENCE;

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Text, a status or bytes.
    Text(String),
    /// A number.
    Number(i64),
    /// Nothing.
    Nothing,
    /// Several.
    Many(Vec<Reply>),
    /// The command was refused.
    Error(String),
}

impl Reply {
    /// Its text.
    ///
    /// # Panics
    ///
    /// Where it is none.
    pub fn text(&self) -> &str {
        match self {
            Reply::Text(text) => text,
            other => panic!("no text: {other:?}"),
        }
    }

    /// Its number.
    ///
    /// # Panics
    ///
    /// Where it is none.
    pub fn number(&self) -> i64 {
        match self {
            Reply::Number(number) => *number,
            other => panic!("no number: {other:?}"),
        }
    }

    /// Its parts.
    ///
    /// # Panics
    ///
    /// Where it has none.
    pub fn parts(&self) -> &[Reply] {
        match self {
            Reply::Many(parts) => parts,
            other => panic!("no parts: {other:?}"),
        }
    }
}

/// Sends commands over a connection of its own to the server's socket, and gives the last one's answer.
pub(super) fn ask(socket: &Path, commands: &[&[&str]]) -> io::Result<Reply> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    for command in commands {
        text.push_str(&format!("*{}\r\n", command.len()));
        for argument in *command {
            text.push_str(&format!("${}\r\n{argument}\r\n", argument.len()));
        }
    }
    stream.write_all(text.as_bytes())?;
    let mut answers = BufReader::new(stream);
    commands.iter().try_fold(Reply::Nothing, |_, _| read(&mut answers))
}

fn read(from: &mut impl BufRead) -> io::Result<Reply> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let line = line.trim_end();
    let number = || line[1..].parse::<i64>().map_err(|_| malformed(line));
    match line.as_bytes().first() {
        Some(b'+') => Ok(Reply::Text(line[1..].to_owned())),
        Some(b'-') => Ok(Reply::Error(line[1..].to_owned())),
        Some(b':') => Ok(Reply::Number(number()?)),
        Some(b'$' | b'*') if number()? < 0 => Ok(Reply::Nothing),
        Some(b'$') => {
            let mut text = vec![0; number()? as usize + 2];
            from.read_exact(&mut text)?;
            text.truncate(text.len() - 2);
            Ok(Reply::Text(String::from_utf8_lossy(&text).into_owned()))
        }
        Some(b'*') => Ok(Reply::Many((0..number()?).map(|_| read(from)).collect::<Result<_, _>>()?)),
        _ => Err(malformed(line)),
    }
}

fn malformed(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no answer of Redis's: {line:?}"))
}
