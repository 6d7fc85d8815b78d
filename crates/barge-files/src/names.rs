//! Names that were meant: the nearest of those there are.

/// The name most like a wrong one, if any is like it at all.
fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| -> Vec<char> {
        name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
    };
    let wrong = plain(wrong);
    let distances = names.into_iter().map(|name| {
        let name_plain = plain(name);
        (distance(&wrong, &name_plain), wrong.len().max(name_plain.len()), name)
    });
    distances
        .filter(|(distance, length, _)| distance * 3 <= *length)
        .min_by_key(|(distance, _, _)| *distance)
        .map(|(_, _, name)| name)
}

/// `; did you mean NAME?` for a wrong name, or nothing where none is like it.
pub fn suggestion<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wrong, names).map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

/// How many letters must be added, removed, changed or swapped with the next to get from one text to the other.
fn distance(from: &[char], to: &[char]) -> usize {
    let mut before = Vec::new();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for above in 0..from.len() {
        let mut next = vec![above + 1];
        for left in 0..to.len() {
            let changed = row[left] + usize::from(from[above] != to[left]);
            let mut least = changed.min(row[left + 1] + 1).min(next[left] + 1);
            if above > 0 && left > 0 && from[above] == to[left - 1] && from[above - 1] == to[left] {
                least = least.min(before[left - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_strange_one_is_not() {
        let names = ["id", "task_type", "status", "amount"];
        assert_eq!(nearest("taskType", names), Some("task_type"));
        assert_eq!(nearest("amout", names), Some("amount"));
        assert_eq!(nearest("Status ", names), Some("status"));
        assert_eq!(nearest("customer", names), None);
        assert_eq!(nearest("nmae", ["id", "name"]), Some("name"));
        assert_eq!(distance(&['a', 'b', 'c'], &['b', 'c', 'd']), 2);
        assert_eq!(distance(&['a', 'b', 'c'], &['b', 'a', 'c', 'c']), 2);
    }
}
