//! Whether a text is a document, without keeping any of it.

use crate::document::{DEPTH_MAX, Document, FEW};

/// Whether [`Document::parse`] takes `text`: for those who read a field or two and must know that the rest is sound. It allocates
/// nothing where there are no escapes and objects have few fields.
///
/// # Errors
/// In words, when it is not JSON to its end, or has a name twice in an object.
pub fn check(text: &[u8]) -> Result<(), String> {
    if std::str::from_utf8(text).is_ok() {
        let mut skim = Skim { text, at: 0 };
        skim.blanks();
        let is_sound = skim.value(0);
        skim.blanks();
        if is_sound && skim.at == text.len() {
            return Ok(());
        }
    }
    // All of it is read where names must be kept, and for its words where it is not sound.
    Document::parse(text).map(|_| ())
}

/// A quick look, which is not sure of what is unusual.
struct Skim<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Skim<'a> {
    #[inline(always)]
    fn peek(&self) -> u8 {
        // Not in a document but where it ends.
        self.text.get(self.at).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn blanks(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    /// Goes past a value. False where it is none, or not surely one.
    #[inline]
    fn value(&mut self, depth: usize) -> bool {
        match self.peek() {
            b'"' => self.string().is_some(),
            b'-' | b'0'..=b'9' => self.number(),
            b'{' => depth < DEPTH_MAX && self.object(depth),
            b'[' => depth < DEPTH_MAX && self.list(depth),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => false,
        }
    }

    fn word(&mut self, word: &[u8]) -> bool {
        let is_it = self
            .text
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(word));
        self.at += word.len();
        is_it
    }

    /// What is between the quotes; none where it has escapes.
    #[inline(always)]
    fn string(&mut self) -> Option<&'a [u8]> {
        let start = self.at + 1;
        let rest = self.text.get(start..)?;
        let len = rest.iter().position(|b| *b == b'"' || *b == b'\\' || *b < 0x20)?;
        self.at = start + len + 1;
        let text = rest.get(..len)?;
        (rest.get(len) == Some(&b'"')).then_some(text)
    }

    #[inline(always)]
    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        self.at - start
    }

    #[inline]
    fn number(&mut self) -> bool {
        self.at += usize::from(self.peek() == b'-');
        let leads = self.peek();
        let whole = self.digits();
        let mut is_good = whole > 0 && (leads != b'0' || whole == 1);
        if self.peek() == b'.' {
            self.at += 1;
            is_good &= self.digits() > 0;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), b'+' | b'-'));
            is_good &= self.digits() > 0;
        }
        is_good
    }

    /// Goes past what is behind an item: whether it is the end, and not a comma.
    #[inline(always)]
    fn ends(&mut self, close: u8) -> Option<bool> {
        self.blanks();
        let next = self.peek();
        self.at += 1;
        (next == close || next == b',').then_some(next == close)
    }

    fn list(&mut self, depth: usize) -> bool {
        self.at += 1;
        self.blanks();
        if self.peek() == b']' {
            self.at += 1;
            return true;
        }
        loop {
            self.blanks();
            if depth + 1 >= DEPTH_MAX || !self.value(depth + 1) {
                return false;
            }
            match self.ends(b']') {
                Some(false) => {}
                Some(true) => return true,
                None => return false,
            }
        }
    }

    fn object(&mut self, depth: usize) -> bool {
        self.at += 1;
        self.blanks();
        if self.peek() == b'}' {
            self.at += 1;
            return true;
        }
        let (mut names, mut count): ([&[u8]; FEW], usize) = ([b""; FEW], 0);
        loop {
            self.blanks();
            if self.peek() != b'"' {
                return false;
            }
            let Some(name) = self.string() else { return false };
            let before = names.get(..count).unwrap_or_default();
            let Some(place) = (!before.contains(&name)).then(|| names.get_mut(count)).flatten() else {
                return false;
            };
            *place = name;
            count += 1;
            self.blanks();
            if self.peek() != b':' {
                return false;
            }
            self.at += 1;
            self.blanks();
            if depth + 1 >= DEPTH_MAX || !self.value(depth + 1) {
                return false;
            }
            match self.ends(b'}') {
                Some(false) => {}
                Some(true) => return true,
                None => return false,
            }
        }
    }
}
