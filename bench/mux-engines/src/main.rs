//! Measures multiplexing engines against each other. See README.md.

mod carrier;
mod engine;
mod engines;
mod measure;
mod pattern;
mod report;

use std::io;
use std::path::PathBuf;

use carrier::{LINK_QUEUE, SHORT_BACKLOG, SOCKET_BUFFER};
use clap::Parser;
use engine::Engine;
use engines::Visitor;
use measure::{close, keystroke, memory, run, small, stall, throughput};
use report::Row;

/// What a sender's kernel and the link hold, in bytes.
const BACKLOG: u64 = SOCKET_BUFFER + LINK_QUEUE;

/// Measures multiplexing engines against each other and prints a table.
#[derive(Parser)]
struct Arguments {
    /// Also write the figures to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Only engines whose name begins so
    #[arg(long, default_value = "")]
    engine: String,
    /// How often each measurement is made; the median is reported
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// MiB for each throughput measurement
    #[arg(long, default_value_t = 512)]
    mib: u64,
    /// Keystrokes for each delay measurement, 50 ms apart
    #[arg(long, default_value_t = 200)]
    echoes: u32,
    /// In a child process: measure this engine's memory only
    #[arg(long = "measure-memory-of", hide = true)]
    memory_of: Option<String>,
    /// In a child process: with so many streams
    #[arg(long, default_value_t = 1000, hide = true)]
    streams: usize,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    if let Some(name) = &arguments.memory_of {
        let mut child = MemoryOf {
            name,
            streams: arguments.streams,
            result: Ok(f64::NAN),
        };
        engines::for_each(&mut child);
        println!("{}", child.result?);
        return Ok(());
    }
    let mut suite = Suite {
        arguments: &arguments,
        rows: Vec::new(),
    };
    engines::for_each(&mut suite);
    println!("{}", report::markdown(&suite.rows));
    match &arguments.json {
        Some(path) => std::fs::write(path, serde_json::to_vec_pretty(&suite.rows)?),
        None => Ok(()),
    }
}

/// All measurements of each engine.
struct Suite<'a> {
    arguments: &'a Arguments,
    rows: Vec<Row>,
}

impl Visitor for Suite<'_> {
    fn visit<E: Engine>(&mut self, engine: E) {
        if !engine.name().starts_with(&self.arguments.engine) {
            return;
        }
        let Arguments { mib, echoes, .. } = *self.arguments;
        let bytes = mib * 1024 * 1024;
        let several = engine.multiplexes();
        self.rows.push(Row {
            engine: engine.name(),
            one_stream: self.times(engine, "1 stream", true, || {
                run(throughput::measure(engine, 1, bytes))
            }),
            eight_streams: self.times(engine, "8 streams", several, || {
                run(throughput::measure(engine, 8, bytes))
            }),
            bytes_per_stream_of_1000: self.times(engine, "1,000 streams", several, || {
                memory::measure(engine.name(), 1000)
            }),
            bytes_per_stream_of_5000: self.times(engine, "5,000 streams", several, || {
                memory::measure(engine.name(), 5000)
            }),
            keystroke_idle: self.together(engine, "keystroke", true, || {
                run(keystroke::measure(engine, false, BACKLOG, echoes))
            }),
            keystroke_bulk: self.together(engine, "keystroke beside bulk", several, || {
                run(keystroke::measure(engine, true, BACKLOG, echoes))
            }),
            keystroke_short_backlog: self.together(engine, "short backlog", several, || {
                run(keystroke::measure(engine, true, SHORT_BACKLOG, echoes))
            }),
            stall: self.together(engine, "stall", several, || {
                run(stall::measure(engine, echoes / 5))
            }),
            small: self.times(engine, "small messages", several, || {
                run(small::measure(engine, 10_000))
            }),
            close: self.times(engine, "close", true, || run(close::measure(engine))),
        });
    }
}

impl Suite<'_> {
    /// Repeats a measurement. A failure is said, and its result left out.
    fn times<T>(
        &self,
        engine: impl Engine,
        what: &str,
        possible: bool,
        measure: impl Fn() -> io::Result<T>,
    ) -> Vec<T> {
        let repeats = if possible { self.arguments.repeats } else { 0 };
        eprintln!("{}: {what}, {repeats} times", engine.name());
        let results = (0..repeats).map(|_| measure());
        results
            .filter_map(|result| said(engine, what, result))
            .collect()
    }

    /// The same for what mostly waits: all repetitions side by side, each with its own link and threads.
    fn together<T: Send>(
        &self,
        engine: impl Engine,
        what: &str,
        possible: bool,
        measure: impl Fn() -> io::Result<T> + Sync,
    ) -> Vec<T> {
        let repeats = if possible { self.arguments.repeats } else { 0 };
        eprintln!("{}: {what}, {repeats} together", engine.name());
        std::thread::scope(|scope| {
            let started: Vec<_> = (0..repeats).map(|_| scope.spawn(&measure)).collect();
            let results = started.into_iter().map(|thread| {
                let failed = |_| Err(io::Error::other("the measurement panicked"));
                thread.join().unwrap_or_else(failed)
            });
            results
                .filter_map(|result| said(engine, what, result))
                .collect()
        })
    }
}

fn said<T>(engine: impl Engine, what: &str, result: io::Result<T>) -> Option<T> {
    result
        .inspect_err(|error| eprintln!("{}: {what}: {error}", engine.name()))
        .ok()
}

/// Finds an engine by name and measures its memory in this process.
struct MemoryOf<'a> {
    name: &'a str,
    streams: usize,
    result: io::Result<f64>,
}

impl Visitor for MemoryOf<'_> {
    fn visit<E: Engine>(&mut self, engine: E) {
        if engine.name() == self.name {
            self.result = memory::in_this_process(engine, self.streams);
        }
    }
}
