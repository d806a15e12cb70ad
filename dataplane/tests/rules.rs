//! Every rule of `docs/ipsec.md` has the tests that it names.

#![expect(clippy::unwrap_used, reason = "all of this program is a test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Everything in which tests are: sources of this package, and the testbed's scripts.
fn sources(under: &Path, all: &mut String) {
    for entry in fs::read_dir(under).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        let ends = |end: &str| path.extension().is_some_and(|is| is == end);
        if path.is_dir() {
            sources(&path, all);
        } else if ends("rs") || ends("sh") {
            all.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_rule_of_what_must_be_discarded_has_its_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut all = String::new();
    sources(&root.join("dataplane/src"), &mut all);
    for script in ["testbed/xfrm.sh", "testbed/ipsec.sh"] {
        all.push_str(&fs::read_to_string(root.join(script)).unwrap());
    }
    let page = fs::read_to_string(root.join("docs/ipsec.md")).unwrap();
    let rules = page.lines().filter(|line| line.starts_with("| RFC "));
    let mut count = 0;
    for rule in rules {
        let tests = rule.rsplit('|').nth(1).unwrap();
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {rule}");
        for name in names {
            let is_there =
                all.contains(&format!("fn {name}(")) || all.contains(&format!("\n{name}() {{"));
            assert!(is_there, "{name} of {rule}");
        }
        count += 1;
    }
    assert!(count >= 30, "{count} rules");
}
