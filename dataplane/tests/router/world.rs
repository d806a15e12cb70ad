//! Two namespaces with a cable between them, and processes inside. Gone when dropped.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

/// One world at a time on a machine: names and addresses are the same in each.
const LOCK: &str = "/tmp/portcullis-netns.lock";

/// Where the edge is reached on the cable.
pub(crate) const EDGE: &str = "198.51.100.1";
/// Where the site is reached on the cable.
pub(crate) const SITE: &str = "198.51.100.11";
/// An address behind the site.
pub(crate) const ORIGIN: &str = "10.0.0.50";
/// The same, IPv6.
pub(crate) const ORIGIN_V6: &str = "fd00:10::50";
/// The source address that vnet 1 has on the edge.
pub(crate) const SOURCE: &str = "100.64.0.2";
/// The same, IPv6.
pub(crate) const SOURCE_V6: &str = "2606:4700:cf1:5000::6440:2";

/// `edge` and `site`, a veth between them, and the origin's addresses inside `site`.
pub(crate) struct World {
    tag: String,
    sides: Vec<&'static str>,
    _lock: File,
}

impl World {
    /// Makes it; `mtu` is the cable's.
    pub(crate) fn new(mtu: u16) -> Self {
        let lock = File::create(LOCK).unwrap();
        lock.lock().unwrap();
        let tag = format!("pc-d-{}", std::process::id());
        let mut world = Self {
            tag,
            sides: Vec::new(),
            _lock: lock,
        };
        world.add("edge");
        world.add("site");
        let (edge, site) = (world.netns("edge"), world.netns("site"));
        let cable = ["ip", "link", "add", "wire", "netns", &edge, "type", "veth"];
        run(&[&cable[..], &["peer", "name", "wire", "netns", &site]].concat());
        for (side, v4, v6) in [
            ("edge", EDGE, "2001:db8::1"),
            ("site", SITE, "2001:db8::11"),
        ] {
            world.run(side, &format!("ip addr add {v4}/24 dev wire"));
            world.run(side, &format!("ip addr add {v6}/64 dev wire nodad"));
            world.run(side, &format!("ip link set wire up mtu {mtu}"));
        }
        world.run("site", &format!("ip addr add {ORIGIN}/32 dev lo"));
        world.run("site", &format!("ip addr add {ORIGIN_V6}/128 dev lo"));
        world
    }

    /// One more namespace, without a cable.
    pub(crate) fn add(&mut self, side: &'static str) {
        run(&["ip", "netns", "add", &self.netns(side)]);
        self.sides.push(side);
        self.run(side, "ip link set lo up");
    }

    /// A cable between two sides: the device that each has of it.
    pub(crate) fn cable(&self, (one, device): (&str, &str), (other, far): (&str, &str)) {
        let (one, other) = (self.netns(one), self.netns(other));
        let words =
            format!("ip link add {device} netns {one} type veth peer name {far} netns {other}");
        run(&words.split_whitespace().collect::<Vec<_>>());
    }

    /// Moves a device from one side to another and sets it up there with an address.
    pub(crate) fn move_link(&self, device: &str, (from, to): (&str, &str), address: &str) {
        let netns = self.netns(to);
        self.run(from, &format!("ip link set {device} netns {netns}"));
        self.run(to, &format!("ip addr add {address}/32 dev {device}"));
        self.run(to, &format!("ip link set {device} up mtu 1420"));
        self.run(to, &format!("ip route add default dev {device}"));
    }

    /// The name of a side to the system.
    pub(crate) fn netns(&self, side: &str) -> String {
        format!("{}-{side}", self.tag)
    }

    /// Runs `command` on a side; its output when it exits with 0, a panic otherwise.
    pub(crate) fn run(&self, side: &str, command: &str) -> String {
        let output = self.output(side, command);
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `command` on a side, at most a minute.
    pub(crate) fn output(&self, side: &str, command: &str) -> Output {
        let netns = self.netns(side);
        let mut words = vec!["60", "ip", "netns", "exec", &netns];
        words.extend(command.split_whitespace());
        Command::new("timeout").args(words).output().unwrap()
    }

    /// Starts this test program on a side in a role.
    pub(crate) fn start(&self, side: &str, role: &str, settings: &[(&str, &str)]) -> Process {
        let program = std::env::current_exe().unwrap();
        let netns = self.netns(side);
        // `ip netns exec` and libtest become the role: the process id is the role's.
        let mut child = Command::new("ip")
            .args(["netns", "exec", &netns, program.to_str().unwrap()])
            .args(["--exact", "role", "--ignored", "--nocapture"])
            .env("PC_ROLE", role)
            .envs(settings.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Process {
            child,
            input,
            output,
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for side in &self.sides {
            let gone = Command::new("ip")
                .args(["netns", "del", &self.netns(side)])
                .status();
            assert!(gone.is_ok_and(|status| status.success()) || std::thread::panicking());
        }
    }
}

/// This test program in a role. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// The next line that begins with `word`, without it. Panics when there is none.
    pub(crate) fn line(&mut self, word: &str) -> String {
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let len = self.output.read_line(&mut line).unwrap();
            assert_ne!(len, 0, "no '{word}' in: {said}");
            // libtest writes its own words in front of the first line.
            if let Some(at) = line.find(&format!("@{word} ")) {
                return line[at + word.len() + 2..].trim().to_owned();
            }
            said.push_str(&line);
        }
    }

    /// Asks for a line.
    pub(crate) fn ask(&mut self, word: &str) -> String {
        writeln!(self.input.as_mut().unwrap(), "{word}").unwrap();
        self.line(word)
    }

    /// Ends it in order: it sees the end of its input.
    pub(crate) fn stop(mut self) {
        self.input.take();
        assert!(self.child.wait().unwrap().success());
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

fn run(command: &[&str]) {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
