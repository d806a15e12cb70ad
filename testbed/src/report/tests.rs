//! Rows, files, tables, pictures and criterion's files.

use std::fs;
use std::path::PathBuf;

use super::{Better, Notes, Report, Row, criterion, markdown, number, plot, text};

/// A directory of one test, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("pc-report-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn row(case: &str, subject: &str, unit: &str, samples: &[f64]) -> Row {
    Row::of("routing", case, subject, unit, samples).unwrap()
}

fn report() -> Report {
    let mut report = Report {
        bench: "routing".to_owned(),
        ..Report::default()
    };
    report
        .merge([
            row("one stream", "portcullis", "Gb/s", &[5.0, 6.0, 5.8]),
            row("one stream", "wireguard-go", "Gb/s", &[2.9, 2.5, 3.0]),
            row("one stream", "portcullis", "µs/packet", &[2.0]),
            row("one stream", "wireguard-go", "µs/packet", &[5.0]),
        ])
        .unwrap();
    report
}

#[test]
fn the_median_of_an_odd_number_of_samples_is_the_middle_one() {
    let row = row("c", "s", "ns", &[9.0, 1.0, 4.0]);
    assert_eq!(
        (row.median, row.min, row.max, row.rounds),
        (4.0, 1.0, 9.0, 3)
    );
}

#[test]
fn the_median_of_an_even_number_of_samples_is_between_the_two_middle_ones() {
    assert_eq!(row("c", "s", "ns", &[4.0, 1.0, 2.0, 9.0]).median, 3.0);
}

#[test]
fn no_samples_and_samples_that_are_no_numbers_make_no_row() {
    assert_eq!(Row::of("b", "c", "s", "ns", &[]), None);
    assert_eq!(Row::of("b", "c", "s", "ns", &[1.0, f64::NAN]), None);
}

#[test]
fn a_rate_is_better_when_more_and_a_time_when_less() {
    for unit in ["Gb/s", "requests/s", "packets/call", "share of loss-free"] {
        assert_eq!(Better::of(unit).ratio(6.0, 3.0), Some(2.0), "{unit}");
    }
    for unit in ["ns", "µs/packet", "ms", "lost"] {
        assert_eq!(Better::of(unit).ratio(3.0, 6.0), Some(2.0), "{unit}");
    }
    assert_eq!(Better::More.ratio(1.0, 0.0), None);
}

#[test]
fn what_is_written_is_read_again_and_is_an_array_of_rows_with_eight_fields() {
    let scratch = Scratch::new("written");
    let mut written = report();
    written.notes = Notes {
        command: "testbed/bench.sh routing".to_owned(),
        machine: "somewhere".to_owned(),
        absent: vec!["gotatun: not installed".to_owned()],
    };
    written.write(&scratch.0).unwrap();
    assert_eq!(Report::read(&scratch.0, "routing").unwrap(), written);

    let file = fs::read(scratch.0.join("routing.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&file).unwrap();
    let mut keys: Vec<_> = json[0].as_object().unwrap().keys().collect();
    keys.sort();
    let expected = [
        "bench", "case", "max", "median", "min", "rounds", "subject", "unit",
    ];
    assert_eq!(keys, expected);
}

#[test]
fn a_bench_that_never_ran_is_an_empty_report() {
    let scratch = Scratch::new("never");
    assert!(Report::read(&scratch.0, "lpm").unwrap().rows.is_empty());
}

#[test]
fn a_file_that_is_not_rows_and_a_name_that_leaves_the_directory_are_errors() {
    let scratch = Scratch::new("broken");
    scratch.put("lpm.json", "[{\"bench\": 1}]");
    assert!(Report::read(&scratch.0, "lpm").is_err());
    assert!(Report::read(&scratch.0, "../lpm").is_err());
}

#[test]
fn merging_replaces_the_same_thing_in_place_and_appends_what_is_new() {
    let mut report = report();
    let newer = row("one stream", "portcullis", "Gb/s", &[7.0]);
    let other = row("eight streams", "portcullis", "Gb/s", &[8.0]);
    report.merge([newer.clone(), other.clone()]).unwrap();
    assert_eq!(report.rows.len(), 5);
    assert_eq!((&report.rows[0], &report.rows[4]), (&newer, &other));
    let foreign = Row::of("lpm", "c", "s", "ns", &[1.0]).unwrap();
    assert!(report.merge([foreign]).is_err());
}

#[test]
fn numbers_have_three_digits_that_mean_something() {
    let seen = [
        15_123.4,
        999.7,
        123.4,
        42.04,
        5.826,
        0.0441,
        0.0,
        -1_234_567.0,
    ];
    let expected = [
        "15 123",
        "1 000",
        "123",
        "42.0",
        "5.83",
        "0.044",
        "0.00",
        "-1 234 567",
    ];
    assert_eq!(seen.map(number), expected);
}

#[test]
fn the_table_compares_with_each_peer_whichever_way_is_better() {
    let table = text::table(&report());
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "routing: one stream [Gb/s, more is better]");
    assert!(lines[2].starts_with("  portcullis "), "{table}");
    assert!(lines[3].ends_with(" 2.00x"), "{table}");
    assert!(
        table.lines().any(|line| line.ends_with(" 2.50x")),
        "{table}"
    );
}

#[test]
fn an_absent_peer_is_named_in_the_table_and_in_markdown() {
    let mut report = report();
    report.notes.absent = vec!["gotatun: not installed".to_owned()];
    assert!(text::table(&report).contains("absent: gotatun: not installed"));
    assert!(markdown::table(&report, &[]).contains("absent: gotatun: not installed"));
}

#[test]
fn a_document_is_refreshed_between_its_marks_and_nowhere_else() {
    let scratch = Scratch::new("document");
    report().write(&scratch.0).unwrap();
    let document = "a\n<!-- bench:routing one stream -->\nold\n<!-- /bench -->\nb\n\
                    <!-- bench:never -->kept<!-- /bench -->c";
    let fresh = markdown::refresh(document, &scratch.0).unwrap();
    assert!(fresh.starts_with("a\n<!-- bench:routing one stream -->\n\n|"));
    assert!(fresh.contains("| portcullis | **5.80** (5.00–6.00) | **2.00** |"));
    assert!(fresh.ends_with("<!-- /bench -->\nb\n<!-- bench:never -->kept<!-- /bench -->c"));
    assert!(!fresh.contains("old"));
    assert_eq!(markdown::refresh(&fresh, &scratch.0).unwrap(), fresh);
    assert!(markdown::refresh("<!-- bench:routing -->", &scratch.0).is_err());
}

#[test]
fn the_picture_has_a_bar_for_each_row_and_escapes_names() {
    let mut report = report();
    let odd = row("one stream", "a <b> & c", "Gb/s", &[1.0, 2.0]);
    report.merge([odd]).unwrap();
    let svg = plot::svg(&report, &[]);
    assert_eq!(svg.matches(" rx=\"2\"").count(), 5);
    assert_eq!(svg.matches("class=\"whisker\"").count(), 3);
    assert!(svg.contains("a &lt;b&gt; &amp; c"));
    assert!(svg.contains("prefers-color-scheme: dark"));
    assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
}

/// What criterion 0.5 and later write, cut down to the fields that say what was measured.
fn criterion_files(scratch: &Scratch, dir: &str, benchmark: &str, sample: &str) {
    scratch.put(&format!("{dir}/new/benchmark.json"), benchmark);
    scratch.put(&format!("{dir}/new/sample.json"), sample);
}

#[test]
fn criterions_files_become_nanoseconds_an_operation() {
    let scratch = Scratch::new("criterion");
    let of = |function: &str, value: &str| {
        format!(
            "{{\"group_id\":\"lpm/v4\",\"function_id\":\"{function}\",\"value_str\":\"{value}\",\
             \"throughput\":{{\"Elements\":64}},\"full_id\":\"x\",\"directory_name\":\"y\"}}"
        )
    };
    // Three samples of 10, 20 and 30 iterations, 64 operations each: 2, 1 and 3 ns an operation.
    let sample = "{\"sampling_mode\":\"Linear\",\"iters\":[10.0,20.0,30.0],\
                  \"times\":[1280.0,1280.0,5760.0]}";
    criterion_files(&scratch, "lpm_v4/trie/1M", &of("trie", "1M"), sample);
    criterion_files(
        &scratch,
        "lpm_v4/portcullis/1M",
        &of("portcullis", "1M"),
        sample,
    );
    criterion_files(
        &scratch,
        "lpm_v4/portcullis/100k",
        &of("portcullis", "100k"),
        sample,
    );
    let other = "{\"group_id\":\"flows/open\",\"function_id\":\"portcullis\"}";
    criterion_files(&scratch, "flows_open/portcullis", other, sample);

    let rows = criterion::collect(&scratch.0, "lpm").unwrap();
    let seen: Vec<_> = rows.iter().map(|r| (&*r.case, &*r.subject)).collect();
    let expected = [
        ("v4 100k", "portcullis"),
        ("v4 1M", "portcullis"),
        ("v4 1M", "trie"),
    ];
    assert_eq!(seen, expected);
    assert_eq!((rows[0].median, rows[0].min, rows[0].max), (2.0, 1.0, 3.0));
    assert_eq!((&*rows[0].unit, rows[0].rounds), ("ns", 3));

    // Without a throughput an iteration is one operation.
    let flows = criterion::collect(&scratch.0, "flows").unwrap();
    assert_eq!((&*flows[0].case, flows[0].median), ("open", 128.0));
}

#[test]
fn without_criterions_files_there_are_no_rows() {
    let scratch = Scratch::new("no-criterion");
    assert!(
        criterion::collect(&scratch.0.join("absent"), "lpm")
            .unwrap()
            .is_empty()
    );
}
