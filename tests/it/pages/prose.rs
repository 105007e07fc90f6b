//! Links, lengths and plain English of every page.

use super::{pages, root};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const PAGE_LINES_MAX: usize = 200;
const README_LINES_MAX: usize = 150;
const PARAGRAPH_WORDS_MAX: usize = 120;
const SENTENCE_WORDS_MAX: usize = 30;
const SENTENCE_WORDS_MEAN_MAX: f64 = 17.0;

#[test]
fn every_link_leads_somewhere() {
    let mut faults = Vec::new();
    for page in pages() {
        for link in links(&page.prose().join("\n")) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let dir = page.path.parent().unwrap_or(Path::new(""));
            let to = match file {
                "" => root().join(&page.path),
                file => root().join(dir).join(file),
            };
            if !to.exists() {
                faults.push(format!("{}: there is no `{link}`", page.name()));
            } else if !anchor.is_empty() && !anchors(&to).contains(anchor) {
                faults.push(format!("{}: `{file}` has no heading `#{anchor}`", page.name()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_path_of_the_source_exists() {
    let mut faults = Vec::new();
    for page in pages() {
        let text = page.prose().join("\n");
        for span in text.split('`').skip(1).step_by(2) {
            let is_path = span.contains('/') && (span.ends_with(".rs") || span.contains("/src/"));
            // A reader's own project has its module in this file.
            if !is_path || span.contains([' ', '{', '*']) || span == "src/lib.rs" {
                continue;
            }
            let (first, rest) = span.split_once('/').unwrap_or((span, ""));
            let within = [
                root().join("node/crates").join(span),
                root().join("node/crates").join(first).join("src").join(rest),
            ];
            let mut beside = page
                .path
                .ancestors()
                .skip(1)
                .map(|dir| root().join(dir).join(span));
            if !within.iter().any(|place| place.exists()) && !beside.any(|place| place.exists()) {
                faults.push(format!("{}: there is no `{span}`", page.name()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Returns the targets of links in Markdown, those within code left out.
fn links(text: &str) -> Vec<String> {
    let text = without_code(text);
    let mut parts = text.split("](");
    parts.next();
    let target = |part: &str| part.split(')').next().unwrap_or_default().to_owned();
    parts.map(target).collect()
}

/// Returns the text with each span of code as one word.
fn without_code(text: &str) -> String {
    let mut out = String::new();
    for (n, part) in text.split('`').enumerate() {
        out.push_str(if n % 2 == 0 { part } else { "code" });
    }
    out
}

/// Returns the anchors of a page's headings, as GitHub makes them.
fn anchors(path: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(path).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| -> String {
        let words = line
            .trim_start_matches('#')
            .trim()
            .to_lowercase()
            .replace(' ', "-");
        let keep = |c: &char| c.is_alphanumeric() || ['-', '_'].contains(c);
        words.chars().filter(keep).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn pages_are_short_and_plain() {
    let mut faults = Vec::new();
    for page in pages() {
        let name = page.name();
        let lines_max = if name == "README.md" {
            README_LINES_MAX
        } else {
            PAGE_LINES_MAX
        };
        let lines = page.text.lines().count();
        if lines > lines_max && !page.is_generated() {
            faults.push(format!("{name}: {lines} lines, at most {lines_max}"));
        }
        let mut lengths = Vec::new();
        for paragraph in paragraphs(&page.prose()) {
            let words = paragraph.split_whitespace().count();
            if words > PARAGRAPH_WORDS_MAX {
                faults.push(format!(
                    "{name}: a paragraph of {words} words: {}",
                    head(&paragraph)
                ));
            }
            for sentence in sentences(&paragraph) {
                let words = sentence.split_whitespace().count();
                if words > SENTENCE_WORDS_MAX {
                    faults.push(format!(
                        "{name}: a sentence of {words} words: {}",
                        head(&sentence)
                    ));
                }
                lengths.push(words);
            }
        }
        let mean = lengths.iter().sum::<usize>() as f64 / lengths.len().max(1) as f64;
        if mean > SENTENCE_WORDS_MEAN_MAX {
            faults.push(format!(
                "{name}: {mean:.1} words a sentence, at most {SENTENCE_WORDS_MEAN_MAX}"
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn head(text: &str) -> String {
    text.split_whitespace().take(12).collect::<Vec<_>>().join(" ")
}

/// Returns paragraphs and items of lists, without headings and tables.
fn paragraphs(lines: &[&str]) -> Vec<String> {
    let mut all = vec![String::new()];
    for line in lines {
        let text = line.trim();
        let number = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let is_item = text.starts_with("- ") || (number.len() < text.len() && number.starts_with(". "));
        let is_other = ["#", "|", "<!--"].iter().any(|start| text.starts_with(start));
        if text.is_empty() || is_item || is_other {
            all.push(String::new());
        }
        if let (false, Some(last)) = (is_other, all.last_mut()) {
            last.push_str(text);
            last.push('\n');
        }
    }
    all.retain(|paragraph| !paragraph.trim().is_empty());
    all
}

/// Returns the sentences of a paragraph, with code and the targets of links as one word.
fn sentences(paragraph: &str) -> Vec<String> {
    let text = without_code(paragraph);
    let words = text.split_whitespace();
    let (mut all, mut sentence) = (Vec::new(), String::new());
    for word in words {
        sentence.push_str(word);
        sentence.push(' ');
        let end = word.trim_end_matches(['"', ')', '*']);
        if end.ends_with(['.', '!', '?']) {
            all.push(std::mem::take(&mut sentence));
        }
    }
    if !sentence.is_empty() {
        all.push(sentence);
    }
    all
}
