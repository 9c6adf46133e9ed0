//! Parts of documents that are made by a test: compared, and written anew where `UPDATE_DOCS` is set.

use std::{env, fs, path::Path};

const END: &str = "<!-- end -->\n";

/// The part of a document between the line that says which test makes it and the line that ends it must be this text.
pub fn holds(document: &str, test: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let begin = format!("<!-- Made by `UPDATE_DOCS=1 cargo test --test programs {test}`; a test compares it. -->\n");
    let whole = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{document}: {e}"));
    let (before, rest) = whole.split_once(&begin).unwrap_or_else(|| panic!("{document} lacks the line {begin}"));
    let (committed, after) = rest.split_once(END).unwrap_or_else(|| panic!("{document} lacks the line {END}"));
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, [before, &begin, text, END, after].concat()).unwrap();
    } else {
        assert!(committed == text, "{document} is not what the test {test} makes:\n{text}");
    }
}
