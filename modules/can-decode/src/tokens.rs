//! The tokens of a DBC file, by statement.

/// A word, a text or a punctuation mark.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    Word(&'a str),
    /// The raw text between quotes; may span lines.
    Text(&'a str),
    Mark(char),
}

const MARKS: &str = ":|@(),[]";
/// First words of statements. They count at the beginning of a line, whatever precedes them.
const KEYWORDS: [&str; 28] = [
    "VERSION",
    "NS_",
    "BS_",
    "BU_",
    "BO_",
    "SG_",
    "EV_",
    "CM_",
    "VAL_",
    "VAL_TABLE_",
    "BA_",
    "BA_DEF_",
    "BA_DEF_DEF_",
    "BA_REL_",
    "BA_DEF_REL_",
    "BA_DEF_DEF_REL_",
    "SIG_VALTYPE_",
    "SG_MUL_VAL_",
    "SIG_GROUP_",
    "SIG_TYPE_REF_",
    "SGTYPE_",
    "SGTYPE_VAL_",
    "BO_TX_BU_",
    "ENVVAR_DATA_",
    "CAT_",
    "CAT_DEF_",
    "FILTER",
    "SIGTYPE_VALTYPE_",
];

/// Splits the file into statements, each with its first line number. A statement ends with a semicolon or at
/// the next keyword.
pub(crate) fn statements(text: &str) -> Result<Vec<(usize, Vec<Token<'_>>)>, String> {
    let mut statements: Vec<(usize, Vec<Token<'_>>)> = Vec::new();
    let (mut rest, mut line, mut is_first) = (text, 1, true);
    let mut is_open = false;
    while let Some(c) = rest.chars().next() {
        let (token, len) = match c {
            '\n' => {
                (line, is_first) = (line + 1, true);
                rest = &rest[1..];
                continue;
            }
            c if c.is_whitespace() || c == '\u{feff}' => {
                rest = &rest[c.len_utf8()..];
                continue;
            }
            ';' => {
                (is_open, is_first) = (false, false);
                rest = &rest[1..];
                continue;
            }
            '"' => {
                let end = end_of_text(&rest[1..]);
                let end = end.ok_or_else(|| format!("line {line}: unterminated text"))?;
                (Token::Text(&rest[1..=end]), end + 2)
            }
            c if MARKS.contains(c) => (Token::Mark(c), 1),
            _ => {
                let is_end = |c: char| c.is_whitespace() || c == '"' || c == ';' || MARKS.contains(c);
                let end = rest.find(is_end).unwrap_or(rest.len());
                (Token::Word(&rest[..end]), end)
            }
        };
        let begins = is_first && matches!(token, Token::Word(word) if KEYWORDS.contains(&word));
        if begins || !is_open {
            statements.push((line, Vec::new()));
            is_open = true;
        }
        if let Some((_, statement)) = statements.last_mut() {
            statement.push(token);
        }
        line += rest[..len].matches('\n').count();
        rest = &rest[len..];
        is_first = false;
    }
    Ok(statements)
}

/// Returns the index of the closing quote; a quote behind a backslash does not count.
fn end_of_text(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let ends = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends.then_some(at)
    })
}
