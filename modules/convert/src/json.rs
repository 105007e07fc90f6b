//! Edits a document in its text: parts that no setting names stay byte for byte.

use crate::fields::Fields;
use crate::scale::{Scale, Scaled};
use weir_sdk::check;
use weir_sdk::document::{Document, Edits, Value};
use weir_sdk::prelude::*;

/// Scales the numbers in `value`.
pub(crate) fn scale(value: &[u8], scales: &[Scale], out: &mut Vec<u8>) -> Result<(), String> {
    check(value)?;
    if let [scale] = scales {
        // The common case needs no list of places.
        let Some((at, len, number)) = find(scale, value)? else {
            out.extend_from_slice(value);
            return Ok(());
        };
        out.extend_from_slice(value.get(..at).unwrap_or_default());
        number.write(out)?;
        out.extend_from_slice(value.get(at + len..).unwrap_or_default());
        return Ok(());
    }
    let mut edits = Vec::with_capacity(scales.len());
    for scale in scales {
        edits.extend(find(scale, value)?);
    }
    edits.sort_unstable_by_key(|(at, ..)| *at);
    let mut done = 0;
    for (at, len, number) in edits {
        if at < done {
            return Err("a field is scaled twice".to_owned());
        }
        out.extend_from_slice(value.get(done..at).unwrap_or_default());
        number.write(out)?;
        done = at + len;
    }
    out.extend_from_slice(value.get(done..).unwrap_or_default());
    Ok(())
}

/// Finds the number in `value`: its offset, its length and its scaled form; `None` if the record has no such
/// field.
#[inline]
fn find(scale: &Scale, value: &[u8]) -> Result<Option<(usize, usize, Scaled)>, String> {
    let field = Json::new(value).at(&scale.path);
    let Some(text) = field.text() else { return Ok(None) };
    if field.number().is_none() {
        return Err(scale.is_no_number());
    }
    let at = field.offset_in(value).unwrap_or_default();
    Ok(Some((at, text.len(), scale.number(text)?)))
}

/// Scales, renames and removes fields of the object `value`.
pub(crate) fn rewrite(
    value: &[u8],
    scales: &[Scale],
    fields: &Fields,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let document = Document::parse(value)?;
    let root = document.root();
    if !matches!(root.value(), Value::Object(_)) {
        return Err("value is not a JSON object".to_owned());
    }
    let mut edits = Edits::default();
    for scale in scales {
        let Some(node) = root.at(&scale.path) else {
            continue;
        };
        let Value::Number(text) = node.value() else {
            return Err(scale.is_no_number());
        };
        let mut json = Vec::new();
        scale.number(text.as_bytes())?.write(&mut json)?;
        edits.replace(node, json);
    }
    fields.check(root.fields().iter().map(|field| &*field.name))?;
    for field in root.fields() {
        let name = fields.renamed(&field.name);
        if name != field.name {
            edits.rename(field, name);
        }
    }
    edits.remove(root, |field| !fields.stays(&field.name));
    edits.write(&document, out);
    Ok(())
}
