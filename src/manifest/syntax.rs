//! The message about a manifest that is no JSON: where, what was expected, and a guess at the mistake.

const COMMENT: &str = "JSON has no comments; remove it";

/// What serde_json expected at `error`, with line and column, and what to do.
pub(super) fn message(text: &str, error: &serde_json::Error) -> String {
    let lines_before = error.line().saturating_sub(1);
    let lines = text.split_inclusive('\n').take(lines_before);
    let mut at = lines.map(str::len).sum::<usize>() + error.column().saturating_sub(1);
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let whole = error.to_string();
    let (what, _) = whole.rsplit_once(" at line ").unwrap_or((&whole, ""));
    if what == "expected ident" {
        // Found within a word.
        let before = text.get(..at).unwrap_or_default();
        at = before.trim_end_matches(char::is_alphabetic).len();
    }
    let (before, rest) = text.split_at(at);
    let expected = match what {
        "expected value" | "expected ident" => "expected a value",
        "key must be a string" => "expected a key in double quotes",
        "trailing comma" => "expected another entry after the comma",
        "trailing characters" => "expected nothing after the end of the object",
        "number out of range" => "expected a number of at most 1.8e308",
        "recursion limit exceeded" => "expected at most 127 brackets in each other",
        what if what.starts_with("EOF") => "expected more, but the file ends",
        what if what.starts_with("control") => "expected no control character in a string",
        what => what,
    };
    let advice = if error.is_eof() {
        unclosed(text)
    } else {
        guess(text, before, rest, what)
    };
    let advice = advice.unwrap_or_else(|| "correct the JSON there".to_owned());
    format!("{}: {expected}; {advice}", place(before))
}

/// Line and column of the character after `before`.
pub(super) fn place(before: &str) -> String {
    let line = before.split('\n').count();
    let column = before.rsplit('\n').next().unwrap_or_default();
    format!("line {line}, column {}", column.chars().count() + 1)
}

/// The advice for a text that ends too early.
fn unclosed(before: &str) -> Option<String> {
    let (outside, bracket) = innermost_open(before)?;
    let what = match bracket {
        '"' => "string".to_owned(),
        bracket => format!("\"{bracket}\""),
    };
    Some(format!("the {what} of {} is never closed", place(outside)))
}

/// The innermost bracket or string that is still open at the end of `text`, and the text before it.
fn innermost_open(text: &str) -> Option<(&str, char)> {
    let mut open: Vec<(usize, char)> = Vec::new();
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        let in_string = matches!(open.last(), Some((_, '"')));
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = in_string,
            '"' | '{' | '[' if !in_string => open.push((at, c)),
            '"' => drop(open.pop()),
            '}' | ']' if !in_string => drop(open.pop()),
            _ => {}
        }
    }
    let (at, bracket) = open.pop()?;
    Some((text.get(..at)?, bracket))
}

/// The mistake that was probably made at `rest`, and the remedy.
fn guess(text: &str, before: &str, rest: &str, what: &str) -> Option<String> {
    if is_yaml(text) {
        return Some("this looks like YAML; write JSON, as in routes.json".to_owned());
    }
    let open = innermost_open(before).map(|(_, bracket)| bracket);
    let previous = before.trim_end().chars().next_back();
    let first = rest.chars().next()?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    let (word, _) = rest.split_at(end.unwrap_or(rest.len()));
    let remedy = match first {
        _ if what.starts_with("control") => return unclosed(before),
        _ if what.starts_with("invalid escape") => "write \"\\\\\" for a backslash",
        _ if open == Some('"') => return None,
        '\u{feff}' => "this is a byte order mark; save the file as UTF-8 without it",
        '#' => COMMENT,
        '/' if rest.starts_with("//") || rest.starts_with("/*") => COMMENT,
        '/' | '\'' | '‘' | '’' | '“' | '”' => {
            "put keys and strings into double quotes (\")"
        }
        ']' | '}' if previous == Some(',') => "remove the comma before it",
        ']' if open == Some('{') => return unclosed(before),
        '}' | ':' if open == Some('[') => return unclosed(before),
        ']' | '}' if open.is_none() => "it closes nothing; remove it",
        '=' => "write \":\" between a key and its value",
        ',' => "remove the comma",
        '"' | '{' | '[' if previous.is_some_and(|c| !",:[{".contains(c)) => "put a comma before it",
        _ if first.is_alphabetic() && before.ends_with(|c: char| c.is_ascii_digit()) => {
            "a number has no unit; write the number alone"
        }
        _ => match word.to_lowercase().as_str() {
            "" => return None,
            "true" | "yes" | "on" => "write true, in lower case",
            "false" | "no" | "off" => "write false, in lower case",
            "null" | "none" | "nil" | "undefined" => "leave out a key that has no value",
            "nan" | "infinity" | "inf" => "JSON has no such number",
            // Without the word, which may be a secret.
            _ if first.is_alphabetic() => "put keys and strings into double quotes (\")",
            _ => return None,
        },
    };
    Some(remedy.to_owned())
}

/// Whether the first line that is no comment begins like YAML.
fn is_yaml(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    let first = first.unwrap_or_default();
    let (key, value) = first.split_once(':').unwrap_or_default();
    let in_key = |b: u8| b.is_ascii_alphanumeric() || b"_$".contains(&b);
    let is_key = !key.is_empty() && key.bytes().all(in_key);
    first == "---" || first.starts_with("- ") || (is_key && !value.starts_with("//"))
}
