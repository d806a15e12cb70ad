//! Just enough Rust for the tidy test: a crate's files by its `mod` lines, and code without comments and strings.

use std::fs;
use std::path::{Path, PathBuf};

/// One library, binary or test crate and every file that its `mod` declarations reach.
pub(crate) struct Crate {
    /// Directory of the package below the root; empty for the root's own.
    pub(crate) package: String,
    /// Modules of the crate's root in the order of their declaration.
    pub(crate) modules: Vec<String>,
    /// The root file first.
    pub(crate) files: Vec<File>,
}

/// A source file.
pub(crate) struct File {
    /// Path below the project's root.
    pub(crate) name: String,
    /// Path of the module, empty for the crate's root.
    pub(crate) module: Vec<String>,
    /// What is in it.
    pub(crate) text: String,
    /// Whether it is compiled for tests only.
    pub(crate) is_test: bool,
}

impl Crate {
    /// The crates of one package: lib.rs, main.rs, build.rs, and each program of tests, benches, examples and src/bin.
    pub(crate) fn all_of(root: &Path, package: &str) -> Vec<Crate> {
        let dir = root.join(package);
        let mut roots: Vec<PathBuf> = ["src/lib.rs", "src/main.rs", "build.rs"]
            .map(|f| dir.join(f))
            .to_vec();
        for extra in ["tests", "benches", "examples", "src/bin"] {
            for entry in fs::read_dir(dir.join(extra))
                .into_iter()
                .flatten()
                .flatten()
            {
                let path = entry.path();
                roots.push(if path.is_dir() {
                    path.join("main.rs")
                } else {
                    path
                });
            }
        }
        roots
            .into_iter()
            .filter(|p| p.is_file() && p.extension().is_some_and(|e| e == "rs"))
            .map(|p| Crate::read(root, package, &p))
            .collect()
    }

    fn read(root: &Path, package: &str, main: &Path) -> Crate {
        let mut of = Crate {
            package: package.to_owned(),
            modules: Vec::new(),
            files: Vec::new(),
        };
        let place = main
            .strip_prefix(root.join(package))
            .expect("a crate is below its package");
        let is_test = place.starts_with("tests") || place.starts_with("benches");
        of.add(root, main, Vec::new(), is_test);
        of
    }

    fn add(&mut self, root: &Path, path: &Path, module: Vec<String>, is_test: bool) {
        let text = fs::read_to_string(path).expect("a source file is UTF-8");
        let declared = declared(&text);
        if module.is_empty() {
            self.modules = declared.iter().map(|(name, _)| name.clone()).collect();
        }
        let name = path
            .strip_prefix(root)
            .expect("below the root")
            .to_string_lossy()
            .into_owned();
        self.files.push(File {
            name,
            module: module.clone(),
            text,
            is_test,
        });
        let dir = path.parent().expect("a file is in a directory");
        let is_root = module.is_empty() || path.ends_with("mod.rs");
        let dir = if is_root {
            dir.to_path_buf()
        } else {
            path.with_extension("")
        };
        for (name, test) in declared {
            let nested = dir.join(&name).join("mod.rs");
            let flat = dir.join(format!("{name}.rs"));
            let child = if nested.is_file() { nested } else { flat };
            let module = module.iter().cloned().chain([name]).collect();
            if child.is_file() {
                self.add(root, &child, module, is_test || test);
            }
        }
    }
}

impl File {
    /// The code that is compiled into the product: without comments, strings and `#[cfg(test)]` items.
    pub(crate) fn production(&self) -> String {
        let mut code = code(&self.text);
        while let Some(start) = code.find("#[cfg(test)]") {
            let end = item_end(&code[start..]) + start;
            code.replace_range(start..end, "");
        }
        code
    }
}

/// `mod x;` declarations, each with whether it is for tests only.
fn declared(text: &str) -> Vec<(String, bool)> {
    let code = code(text);
    let mut found = Vec::new();
    let mut test = false;
    for line in code.lines().map(str::trim) {
        let words = line.strip_suffix(';').unwrap_or_default();
        if let Some((_, name)) = format!(" {words}").split_once(" mod ") {
            found.push((name.trim().to_owned(), test));
        }
        if line.starts_with("#[") {
            test |= line.contains("cfg(test)") || line.contains("cfg(all(test");
        } else if !line.is_empty() {
            test = false;
        }
    }
    found
}

/// Where the item that starts here ends: at its `;`, or at the brace that closes its first one.
fn item_end(code: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in code.char_indices() {
        match c {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// The names that follow `crate::` in `code`, those in braces included.
pub(crate) fn crate_names(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => names.extend(top_names(list)),
            None => names.push(identifier(rest)),
        }
    }
    names
}

/// First identifiers of the elements of a `use` list, up to the brace that closes it.
fn top_names(list: &str) -> Vec<String> {
    let mut names = vec![identifier(list.trim_start())];
    let mut depth = 0usize;
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(identifier(list[at + 1..].trim_start())),
            _ => {}
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| is_word(*c)).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` stands in `text` with no letter, digit or underscore on either side.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// `text` without comments and without what is inside string and character literals; lines stay lines.
pub(crate) fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let literal = literal_len(rest, out.chars().next_back());
        if literal > 0 {
            out.extend(rest[..literal].chars().filter(|c| *c == '\n'));
            rest = &rest[literal..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// Length of the comment or literal that starts here, 0 if none does.
fn literal_len(text: &str, before: Option<char>) -> usize {
    let bytes = text.as_bytes();
    match bytes {
        [b'/', b'/', ..] => text.find('\n').unwrap_or(text.len()),
        [b'/', b'*', ..] => block_comment_len(text),
        [b'"', ..] => quoted_len(text, b'"'),
        [b'r', b'"' | b'#', ..] if !before.is_some_and(|c| is_word(c) && c != 'b') => raw_len(text),
        [b'\'', b'\\', ..] => quoted_len(text, b'\''),
        [b'\'', ..] => {
            let mut chars = text.char_indices().skip(2);
            match chars.next() {
                Some((at, '\'')) => at + 1,
                _ => 0,
            }
        }
        _ => 0,
    }
}

fn block_comment_len(text: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn quoted_len(text: &str, quote: u8) -> usize {
    let mut escaped = false;
    for (at, b) in text.bytes().enumerate().skip(1) {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            _ if b == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_len(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|b| *b == b'#').count();
    if text.as_bytes().get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = 2 + hashes;
    text[body..]
        .find(&end)
        .map_or(text.len(), |at| body + at + end.len())
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = "a /* b /* c */ d */ e // f\n\"g \\\" h\" 'i' r#\"j \" k\"# 'l: &'m str '\\'' n";
    let seen: Vec<String> = code(text).split_whitespace().map(str::to_owned).collect();
    assert_eq!(seen, ["a", "e", "'l:", "&'m", "str", "n"]);
}
