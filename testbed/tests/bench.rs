//! The benchmarks' scripts answer their arguments; what they measure is not run here.

use std::path::Path;
use std::process::{Command, Output};

fn script(name: &str, args: &[&str]) -> Output {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(name))
        .args(args)
        .output()
        .expect("bash runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complained(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn help_names_every_option_and_does_nothing() {
    let help = script("bench.sh", &["--help"]);
    assert!(help.status.success());
    for word in ["--rounds", "--quick", "--only", "--refresh", "--list"] {
        assert!(said(&help).contains(word), "{word} in {}", said(&help));
    }
    assert!(said(&script("peers.sh", &["--help"])).contains("--list"));
}

#[test]
fn the_list_names_every_benchmark_and_every_peer_there_or_absent() {
    let list = script("bench.sh", &["--list"]);
    assert!(list.status.success(), "{}", complained(&list));
    for word in [
        "routing", "lpm", "flows", "crypto", "http", "load", "wan", "store",
    ] {
        assert!(said(&list).contains(word), "{word} in {}", said(&list));
    }
    for peer in ["gotatun", "boringtun", "onetun", "wireguard-go-backports"] {
        let line = said(&list)
            .lines()
            .find(|line| line.trim_start().starts_with(&format!("{peer} ")))
            .map(str::to_owned);
        assert!(line.is_some(), "{peer} in {}", said(&list));
    }
}

#[test]
fn what_is_not_understood_is_status_2_and_says_why() {
    for args in [
        &["nonsense"][..],
        &["--nonsense"],
        &["--rounds"],
        &["--rounds", "0"],
        &["--rounds", "many", "lpm"],
    ] {
        let answer = script("bench.sh", args);
        assert_eq!(answer.status.code(), Some(2), "{args:?}");
        assert!(complained(&answer).contains("--help"), "{args:?}");
    }
    let peer = script("peers.sh", &["--nonsense"]);
    assert_eq!(peer.status.code(), Some(1));
}
