//! PostgreSQL's messages, as far as to tell one from the next.
//!
//! After the first message of a client, which has no type, a message is a type byte, a length of four bytes that counts
//! itself, and the rest. Before that first message a client may ask for encryption; the server answers with one byte.

use std::collections::HashMap;

/// How far a connection is. Both directions look at it: the answer to a request for encryption decides how the client
/// goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The client's next message has no type.
    Opening,
    /// The client has asked for encryption and waits for the byte that answers.
    Asked,
    /// Messages, each way.
    Messages,
    /// Encrypted, or no protocol known here: passed on as it comes.
    Opaque,
}

/// A whole message, or bytes of an opaque connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// A message's type; none for the first message, for the answer to a request and for opaque bytes.
    kind: Option<u8>,
    pub(super) bytes: Vec<u8>,
    pub(super) is_message: bool,
}

impl Piece {
    fn opaque(bytes: Vec<u8>) -> Self {
        Self { kind: None, bytes, is_message: false }
    }

    fn untyped(bytes: Vec<u8>) -> Self {
        Self { kind: None, bytes, is_message: true }
    }

    /// The strings at the start of the message, each ended by a zero byte.
    fn strings(&self) -> impl Iterator<Item = String> {
        let body = self.bytes.get(5..).unwrap_or_default();
        body.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned())
    }

    pub(super) fn is_sync(&self) -> bool {
        self.kind == Some(b'S')
    }

    pub(super) fn is_simple_query(&self) -> bool {
        self.kind == Some(b'Q')
    }
}

/// The bytes of one direction, cut into pieces.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    held: Vec<u8>,
    /// How much of it has been taken. It is dropped once for each chunk, not for each message.
    taken: usize,
}

/// A request for TLS, a request for GSSAPI encryption, and the longest first message that PostgreSQL takes.
const TLS_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const OPENING_BYTES_MAX: usize = 10_000;

impl Cutter {
    pub(super) fn take_in(&mut self, chunk: &[u8]) {
        self.held.drain(..self.taken);
        self.taken = 0;
        self.held.extend_from_slice(chunk);
    }

    /// The next piece from a client.
    pub(super) fn next_from_client(&mut self, phase: &mut Phase) -> Option<Piece> {
        match phase {
            Phase::Opening => {
                let length = self.length_at(0)?;
                // TLS without a request starts with a byte that would make a message of 369 million bytes.
                if !(8..=OPENING_BYTES_MAX).contains(&length) {
                    *phase = Phase::Opaque;
                    return self.everything();
                }
                let bytes = self.take(length)?;
                *phase = match u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) {
                    TLS_REQUEST | GSS_REQUEST => Phase::Asked,
                    _ => Phase::Messages,
                };
                Some(Piece::untyped(bytes))
            }
            Phase::Messages => self.message(phase),
            // A client that does not wait for the answer breaks the protocol.
            Phase::Asked | Phase::Opaque => self.everything(),
        }
    }

    /// The next piece from a server.
    pub(super) fn next_from_server(&mut self, phase: &mut Phase) -> Option<Piece> {
        match phase {
            Phase::Asked => {
                let answer = self.take(1)?;
                *phase = if answer == b"N" { Phase::Opening } else { Phase::Opaque };
                Some(Piece::untyped(answer))
            }
            // A server that refuses a connection at once may speak before it is spoken to.
            Phase::Opening | Phase::Messages => self.message(phase),
            Phase::Opaque => self.everything(),
        }
    }

    fn message(&mut self, phase: &mut Phase) -> Option<Piece> {
        let length = self.length_at(1)?;
        if length < 4 {
            *phase = Phase::Opaque;
            return self.everything();
        }
        let bytes = self.take(1 + length)?;
        Some(Piece { kind: Some(bytes[0]), bytes, is_message: true })
    }

    fn length_at(&self, offset: usize) -> Option<usize> {
        let bytes = self.rest().get(offset..offset + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes) as usize)
    }

    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        let bytes = self.rest().get(..length)?.to_vec();
        self.taken += length;
        Some(bytes)
    }

    fn everything(&mut self) -> Option<Piece> {
        let bytes = self.take(self.rest().len()).filter(|bytes| !bytes.is_empty())?;
        Some(Piece::opaque(bytes))
    }

    fn rest(&self) -> &[u8] {
        &self.held[self.taken..]
    }
}

/// The statements that a client has prepared, to know what an execution runs.
#[derive(Debug, Default)]
pub(super) struct Statements {
    texts: HashMap<String, String>,
    /// The text of each portal's statement.
    portals: HashMap<String, String>,
}

impl Statements {
    /// The text that a client's message runs, if it runs any.
    pub(super) fn run_by(&mut self, piece: &Piece) -> Option<String> {
        let mut strings = piece.strings();
        match piece.kind? {
            b'Q' => strings.next(),
            b'P' => {
                let (name, text) = (strings.next()?, strings.next()?);
                self.texts.insert(name, text);
                None
            }
            b'B' => {
                let (portal, statement) = (strings.next()?, strings.next()?);
                let text = self.texts.get(&statement).cloned().unwrap_or_default();
                self.portals.insert(portal, text);
                None
            }
            b'E' => self.portals.get(&strings.next()?).cloned(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
    }

    fn opening(code: u32) -> Vec<u8> {
        [8_u32.to_be_bytes(), code.to_be_bytes()].concat()
    }

    #[test]
    fn messages_are_whole_however_the_bytes_come() {
        let (mut cutter, mut phase) = (Cutter::default(), Phase::Opening);
        let stream = [opening(196_608), message(b'Q', b"commit\0"), message(b'S', b"")].concat();
        let mut pieces = Vec::new();
        for byte in stream {
            cutter.take_in(&[byte]);
            pieces.extend(cutter.next_from_client(&mut phase));
        }
        let kinds: Vec<_> = pieces.iter().map(|piece| piece.kind).collect();
        assert_eq!(kinds, [None, Some(b'Q'), Some(b'S')]);
        assert_eq!(Statements::default().run_by(&pieces[1]).as_deref(), Some("commit"));
    }

    #[test]
    fn the_answer_to_a_request_decides_how_it_goes_on() {
        for (answer, expected) in [(b'N', Phase::Opening), (b'S', Phase::Opaque)] {
            let (mut client, mut server, mut phase) = (Cutter::default(), Cutter::default(), Phase::Opening);
            client.take_in(&opening(TLS_REQUEST));
            assert!(client.next_from_client(&mut phase).is_some());
            assert_eq!(phase, Phase::Asked);
            server.take_in(&[answer]);
            assert!(server.next_from_server(&mut phase).is_some());
            assert_eq!(phase, expected);
        }
    }

    #[test]
    fn an_execution_runs_the_text_that_was_prepared() {
        let (mut cutter, mut phase, mut statements) =
            (Cutter::default(), Phase::Messages, Statements::default());
        cutter.take_in(&message(b'P', b"s1\0COMMIT\0\0\0"));
        cutter.take_in(&message(b'B', b"\0s1\0\0\0\0\0\0\0"));
        cutter.take_in(&message(b'E', b"\0\0\0\0\0"));
        let mut run = Vec::new();
        while let Some(piece) = cutter.next_from_client(&mut phase) {
            run.push(statements.run_by(&piece));
        }
        assert_eq!(run, [None, None, Some("COMMIT".to_owned())]);
    }
}
