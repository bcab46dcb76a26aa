//! The figures as tables.

use std::fmt::Write;

use serde::Serialize;

use crate::measure::close::Close;
use crate::measure::keystroke::Keystroke;
use crate::measure::small::Small;
use crate::measure::stall::Stall;
use crate::measure::throughput::Throughput;

/// All that was measured of one engine. Each list holds the repetitions, and is empty where the measurement is not
/// possible or failed every time.
#[derive(Serialize)]
pub struct Row {
    pub engine: &'static str,
    pub one_stream: Vec<Throughput>,
    pub eight_streams: Vec<Throughput>,
    /// Both ends together.
    pub bytes_per_stream_of_1000: Vec<f64>,
    pub bytes_per_stream_of_5000: Vec<f64>,
    pub keystroke_idle: Vec<Keystroke>,
    pub keystroke_bulk: Vec<Keystroke>,
    /// With 64 KiB of backlog below the engine.
    pub keystroke_short_backlog: Vec<Keystroke>,
    pub stall: Vec<Stall>,
    pub small: Vec<Small>,
    pub close: Vec<Close>,
}

/// The tables, with the median of each column.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = String::new();
    table(
        &mut text,
        "Throughput over loopback TCP; memory of an open idle stream, both ends together",
        &[
            "Engine",
            "1 stream, MiB/s",
            "CPU s/GiB",
            "8 streams, MiB/s",
            "CPU s/GiB",
            "KiB/stream of 1,000",
            "of 5,000",
        ],
        rows,
        |row| {
            vec![
                median(&row.one_stream, |it| it.mib_per_second, 0),
                median(&row.one_stream, |it| it.cpu_seconds_per_gib, 2),
                median(&row.eight_streams, |it| it.mib_per_second, 0),
                median(&row.eight_streams, |it| it.cpu_seconds_per_gib, 2),
                median(&row.bytes_per_stream_of_1000, |it| it / 1024.0, 2),
                median(&row.bytes_per_stream_of_5000, |it| it / 1024.0, 2),
            ]
        },
    );
    table(
        &mut text,
        "Keystroke and echo on the shaped link, ms",
        &[
            "Engine",
            "idle p50",
            "p99",
            "max",
            "beside bulk p50",
            "p99",
            "max",
            "bulk meanwhile, MiB/s",
            "short backlog p50",
            "p99",
            "bulk meanwhile, MiB/s",
        ],
        rows,
        |row| {
            let (idle, bulk) = (&row.keystroke_idle, &row.keystroke_bulk);
            let short = &row.keystroke_short_backlog;
            vec![
                median(idle, |it| it.p50_ms, 1),
                median(idle, |it| it.p99_ms, 1),
                median(idle, |it| it.max_ms, 1),
                median(bulk, |it| it.p50_ms, 1),
                median(bulk, |it| it.p99_ms, 1),
                median(bulk, |it| it.max_ms, 1),
                median(bulk, |it| it.bulk_mib_per_second, 1),
                median(short, |it| it.p50_ms, 1),
                median(short, |it| it.p99_ms, 1),
                median(short, |it| it.bulk_mib_per_second, 1),
            ]
        },
    );
    table(
        &mut text,
        "A stream that nobody reads",
        &[
            "Engine",
            "others go on",
            "p50, ms",
            "p99, ms",
            "new stream works",
            "another bulk, MiB/s",
            "taken of the unread one, KiB",
            "1-byte messages unread",
            "others go on",
        ],
        rows,
        |row| {
            vec![
                unanimous(row.stall.iter().map(|it| yes(it.goes_on))),
                median(&row.stall, |it| it.p50_ms.unwrap_or(f64::NAN), 1),
                median(&row.stall, |it| it.p99_ms.unwrap_or(f64::NAN), 1),
                unanimous(row.stall.iter().map(|it| yes(it.new_stream))),
                median(&row.stall, |it| it.other_mib_per_second, 4),
                median(&row.stall, |it| it.taken_kib as f64, 0),
                median(&row.small, |it| f64::from(it.written), 0),
                unanimous(row.small.iter().map(|it| yes(it.goes_on))),
            ]
        },
    );
    table(
        &mut text,
        "How streams end",
        &[
            "Engine",
            "half-close",
            "reset differs from end",
            "reset reads as",
            "writes as",
        ],
        rows,
        |row| {
            let close = |word: &dyn Fn(&Close) -> String| unanimous(row.close.iter().map(word));
            vec![
                close(&|it| yes(it.half_close)),
                close(&|it| yes(it.reset_differs)),
                close(&|it| it.reset_reads_as.clone()),
                close(&|it| it.reset_writes_as.clone()),
            ]
        },
    );
    text
}

fn table(
    text: &mut String,
    title: &str,
    head: &[&str],
    rows: &[Row],
    cells: impl Fn(&Row) -> Vec<String>,
) {
    let alignment = vec!["---"; head.len()].join(" | ");
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{title}:\n\n| {} |\n| {alignment} |",
        head.join(" | ")
    );
    for row in rows {
        let _ = writeln!(text, "| {} | {} |", row.engine, cells(row).join(" | "));
    }
    text.push('\n');
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

/// The middle value, with so many digits; `-` where there is none.
fn median<T>(results: &[T], value: impl Fn(&T) -> f64, digits: usize) -> String {
    let mut values: Vec<f64> = results.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    match values.get(values.len() / 2) {
        Some(value) if !value.is_nan() => format!("{value:.digits$}"),
        _ => "-".to_owned(),
    }
}

/// What all repetitions say, or all that they say.
fn unanimous(words: impl Iterator<Item = String>) -> String {
    let mut words: Vec<String> = words.collect();
    words.sort();
    words.dedup();
    if words.is_empty() {
        return "-".to_owned();
    }
    words.join("/")
}
