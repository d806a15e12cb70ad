//! Holds the tree to its shape: what style and ARCHITECTURE.md promise and the compiler does not check.

mod rust;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rust::{Crate, File};

/// Longest file in lines; a longer one is split by subject.
const LINES_MAX: usize = 600;

/// The packages, as directories below the root. The first is the binary's.
const PACKAGES: [&str; 6] = [
    "",
    "dataplane",
    "dataplane/models",
    "controlplane",
    "proxy",
    "testbed",
];

/// Modules that think and do no I/O: time, randomness and addresses are their arguments.
const PURE: [(&str, &[&str]); 2] = [
    (
        "dataplane",
        &[
            "id", "wire", "packet", "fib", "source", "tunnel", "flow", "program", "node",
        ],
    ),
    ("controlplane", &["model", "rib", "dns", "health"]),
];

/// Words of things that a pure module has no business with.
const IMPURE: [&str; 14] = [
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixListener",
    "UnixStream",
    "thread",
    "tokio",
    "socket2",
    "nix",
    "rtnetlink",
    "Instant::now",
    "SystemTime::now",
    "std::fs",
    "std::process",
];

/// The only places with `unsafe`: system calls, and the publication of tables to lock-free readers.
const UNSAFE: [&str; 4] = [
    "dataplane/src/io/sys.rs",
    "dataplane/src/io/sys/",
    "dataplane/src/fib/publish.rs",
    "dataplane/src/fib/reserve.rs",
];

/// System calls in a pure module all the same: memory, which changes no result.
const MEMORY: &str = "dataplane/src/fib/reserve.rs";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("testbed is a directory of the workspace")
        .to_path_buf()
}

fn crates() -> Vec<Crate> {
    PACKAGES
        .iter()
        .flat_map(|package| Crate::all_of(&root(), package))
        .collect()
}

fn files() -> Vec<File> {
    crates().into_iter().flat_map(|c| c.files).collect()
}

/// Every file below `dir` that people write: no build output, nothing hidden but our own.
fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory of the project is readable") {
        let path = entry.expect("a directory entry is readable").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_symlink() || ["target", "run", ".git"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn written(extensions: &[&str]) -> Vec<(String, String)> {
    let root = root();
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    paths
        .into_iter()
        .filter(|p| {
            p.extension()
                .is_some_and(|e| extensions.iter().any(|x| e == *x))
        })
        .map(|p| {
            let text = fs::read_to_string(&p).expect("a source file is UTF-8");
            let name = p.strip_prefix(&root).expect("found below the root");
            (name.to_string_lossy().into_owned(), text)
        })
        .collect()
}

/// Fails with one line per finding, so that one run shows all of them.
fn none(what: &str, findings: &[String]) {
    assert!(
        findings.is_empty(),
        "{what}:\n  {}\n",
        findings.join("\n  ")
    );
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let long: Vec<_> = written(&["rs", "sh", "md", "toml"])
        .into_iter()
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(name, lines)| format!("{name}: {lines} lines"))
        .collect();
    none("split these by subject", &long);
}

#[test]
fn the_first_line_of_a_file_says_its_duty() {
    let mute: Vec<_> = files()
        .into_iter()
        .filter(|f| {
            let first = f.text.lines().next().unwrap_or_default();
            first
                .strip_prefix("//! ")
                .is_none_or(|duty| duty.trim().len() < 8)
        })
        .map(|f| f.name)
        .collect();
    none("the first line must be `//! ` and the file's duty", &mute);
}

#[test]
fn every_rust_file_is_part_of_a_crate() {
    let reached: Vec<String> = files().into_iter().map(|f| f.name).collect();
    let lost: Vec<_> = written(&["rs"])
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| !reached.contains(name))
        .collect();
    none("no `mod` leads to these", &lost);
}

#[test]
fn a_module_names_only_modules_before_it() {
    let upward: Vec<_> = crates().iter().flat_map(upward_imports).collect();
    none(
        "a module may name only those declared before it in lib.rs",
        &upward,
    );
}

fn upward_imports(of: &Crate) -> Vec<String> {
    let order: BTreeMap<&str, usize> = of
        .modules
        .iter()
        .enumerate()
        .map(|(i, name)| (name.as_str(), i))
        .collect();
    let mut findings = Vec::new();
    for file in of.files.iter().filter(|f| !f.is_test) {
        let Some(own) = file.module.first().and_then(|m| order.get(m.as_str())) else {
            continue;
        };
        for named in rust::crate_names(&file.production()) {
            if order.get(named.as_str()).is_some_and(|place| place > own) {
                findings.push(format!("{} names crate::{named}", file.name));
            }
        }
    }
    findings
}

#[test]
fn pure_modules_do_no_io_and_read_no_clock() {
    let mut findings = Vec::new();
    for of in crates() {
        let Some((_, pure)) = PURE.iter().find(|(package, _)| *package == of.package) else {
            continue;
        };
        let is_pure = |f: &&File| {
            f.name != MEMORY && f.module.first().is_some_and(|m| pure.contains(&m.as_str()))
        };
        for file in of.files.iter().filter(is_pure).filter(|f| !f.is_test) {
            let code = file.production();
            for word in IMPURE.iter().filter(|w| rust::has_word(&code, w)) {
                findings.push(format!("{} says `{word}`", file.name));
            }
        }
    }
    none(
        "these belong behind an argument, or in a module that does I/O",
        &findings,
    );
}

#[test]
fn unsafe_code_stays_in_its_rooms() {
    let outside: Vec<_> = files()
        .into_iter()
        .filter(|f| !UNSAFE.iter().any(|room| f.name.starts_with(room)))
        .filter(|f| rust::has_word(&rust::code(&f.text), "unsafe"))
        .map(|f| f.name)
        .collect();
    none(
        "`unsafe` is for the files that ARCHITECTURE.md names",
        &outside,
    );
}

#[test]
fn nothing_is_left_to_do() {
    // In two halves, or this file would find itself.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    let mut findings = Vec::new();
    for (name, text) in written(&["rs", "sh", "md", "toml"]) {
        for (number, line) in text.lines().enumerate() {
            if marks.iter().any(|mark| rust::has_word(line, mark)) {
                findings.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none("finish it or leave it out", &findings);
}

#[test]
fn scripts_say_what_they_are_for() {
    let mute: Vec<_> = written(&["sh"])
        .into_iter()
        .filter(|(_, text)| {
            !text
                .lines()
                .nth(1)
                .is_some_and(|line| line.starts_with("# "))
        })
        .map(|(name, _)| name)
        .collect();
    none(
        "the second line must be a comment with the script's duty",
        &mute,
    );
}

#[test]
fn an_upward_import_is_found() {
    let file = |module: &str, text: &str| File {
        name: format!("{module}.rs"),
        module: vec![module.to_owned()],
        text: text.to_owned(),
        is_test: false,
    };
    let of = Crate {
        package: "dataplane".to_owned(),
        modules: vec!["low".to_owned(), "high".to_owned()],
        files: vec![
            file(
                "low",
                "use crate::{high::Thing, low};\n// crate::high\nfn f() { \"crate::high\"; }",
            ),
            file(
                "high",
                "use crate::low;\n#[cfg(test)]\nmod tests { use crate::high; }",
            ),
        ],
    };
    assert_eq!(upward_imports(&of), ["low.rs names crate::high"]);
}
