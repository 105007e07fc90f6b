//! Translates the patterns of JSON Schema (ECMA-262) to Rust's regex syntax.

use regex_lite::Regex;

/// Characters of `\s` (ECMA-262, section 22.2.2.9: white space and line terminators).
const BLANKS: &str =
    r"\t\n\x{b}\f\r \x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}";
/// Characters of `\S`.
const NO_BLANKS: &str = r"\x{0}-\x{8}\x{e}-\x{1f}!-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{fefe}\x{ff00}-\x{10ffff}";

/// Translates the pattern `text`.
///
/// # Errors
/// For unsupported syntax: look-around, back-references, Unicode classes.
pub(super) fn read(text: &str) -> Result<Regex, String> {
    let refused = |e: String| format!("the pattern `{text}` is not supported: {e}");
    let translated = translate(text).map_err(refused)?;
    Regex::new(&translated).map_err(|e| refused(e.to_string()))
}

fn translate(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let (mut chars, mut in_class) = (text.chars(), false);
    while let Some(c) = chars.next() {
        match (c, in_class) {
            ('\\', _) => escape(&mut chars, in_class, &mut out)?,
            // Excludes every line terminator, not only the line feed.
            ('.', false) => out.push_str(r"[^\n\r\x{2028}\x{2029}]"),
            ('[', false) => {
                in_class = true;
                out.push('[');
                if chars.as_str().starts_with('^') {
                    out.push('^');
                    chars.next();
                }
                // An empty class matches nothing; negated, it matches everything.
                if chars.as_str().starts_with(']') {
                    chars.next();
                    in_class = false;
                    let is_negated = out.ends_with('^');
                    out.truncate(out.len() - 1 - usize::from(is_negated));
                    out.push_str(if is_negated {
                        r"[\x{0}-\x{10ffff}]"
                    } else {
                        r"[^\x{0}-\x{10ffff}]"
                    });
                }
            }
            (']', true) => {
                in_class = false;
                out.push(']');
            }
            // Nested classes and class operators have another meaning in Rust's syntax.
            ('[' | '&' | '~', true) => {
                out.push('\\');
                out.push(c);
            }
            (c, _) => out.push(c),
        }
    }
    Ok(out)
}

fn escape(chars: &mut std::str::Chars<'_>, in_class: bool, out: &mut String) -> Result<(), String> {
    let Some(c) = chars.next() else {
        return Err("it ends with a backslash".to_owned());
    };
    match c {
        's' if in_class => out.push_str(BLANKS),
        'S' if in_class => out.push_str(NO_BLANKS),
        's' => out.extend(["[", BLANKS, "]"]),
        'S' => out.extend(["[^", BLANKS, "]"]),
        'c' => {
            let letter = chars.next().filter(char::is_ascii_alphabetic);
            let letter = letter.ok_or("no letter follows `\\c`")?;
            out.push_str(&format!("\\x{{{:x}}}", u32::from(letter) & 0x1f));
        }
        'v' => out.push_str(r"\x{b}"),
        '0' if !chars.as_str().starts_with(|c: char| c.is_ascii_digit()) => out.push_str(r"\x{0}"),
        'b' if in_class => out.push_str(r"\x{8}"),
        'u' if !chars.as_str().starts_with('{') => {
            let digits = chars
                .as_str()
                .get(..4)
                .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
            let digits = digits.ok_or("four digits follow `\\u`")?;
            out.push_str(&format!("\\x{{{digits}}}"));
            *chars = chars.as_str().get(4..).unwrap_or_default().chars();
        }
        // Anchors of Rust's syntax that ECMA-262 does not have.
        'A' | 'z' | 'a' | '<' | '>' => return Err(format!("`\\{c}` is not an escape")),
        '/' | '-' => out.push_str(if c == '-' { r"\-" } else { "/" }),
        c => {
            out.push('\\');
            out.push(c);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_mean_what_they_do_elsewhere() {
        for (pattern, text, fits) in [
            (r"^\s$", "\u{a0}", true),
            (r"^\S$", "\u{2029}", false),
            (r"^[\s\S]$", "x", true),
            (r"^[^\s]+$", "a\u{feff}", false),
            (r"^[\S]$", "\u{3000}", false),
            (r"^.$", "\u{2028}", false),
            (r"^.$", "\r", false),
            (r"^\cC$", "\u{3}", true),
            (r"^\u00e9$", "é", true),
            (r"^[a&&b]$", "&", true),
            (r"^[[a]$", "[", true),
            (r"^[]$", "x", false),
            (r"^[^]$", "x", true),
            (r"^\d+$", "١", false),
            (r"^\w$", "é", false),
            (r"a\/b", "a/b", true),
            (r"^$", "\n", false),
        ] {
            assert_eq!(
                read(pattern).unwrap().is_match(text),
                fits,
                "{pattern} of {text:?}"
            );
        }
        for pattern in [
            r"(?=x)",
            r"\p{L}",
            r"\1",
            r"(?<n>a)\k<n>",
            r"\Aa\z",
            "\\",
            r"\u12",
            r"\c1",
        ] {
            assert!(read(pattern).is_err(), "{pattern}");
        }
    }
}
