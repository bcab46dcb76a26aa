//! The loop that moves packets, in one thread: it sleeps in `ppoll` until a packet or a command
//! arrives or a packet is due. So an idle link costs nothing, and no lock is needed.

use std::io::{self, BufRead as _, StdinLock, Write as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tun_rs::{DeviceBuilder, SyncDevice};

use super::Side;
use super::command::{Command, Directions};
use super::direction::Direction;
use super::flows::Flows;
use super::segment::Segment;

/// The largest IP packet.
const LARGEST_PACKET: usize = 65535;

/// Packets that are read from one side before the other side is served.
const BATCH: usize = 64;

/// The longest command line.
const LONGEST_LINE: usize = 1000;

/// The settings of a link.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names of the two interfaces, at most 15 bytes each.
    pub names: [String; 2],
    /// One-way delay.
    pub delay: Duration,
    /// Bit/s in each direction.
    pub rate: Option<u64>,
    /// Bytes that may wait in the queue; `None`: rate times round trip.
    pub queue: Option<usize>,
    /// Largest packet in bytes.
    pub mtu: u16,
    /// Packets that the kernel queues for this program, for each interface.
    pub tx_queue: u32,
}

/// Why a link could not be created, or failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A TUN interface cannot be created.
    #[error("the interface {0} cannot be made: {1}; it needs root and /dev/net/tun")]
    Make(String, io::Error),
    /// An interface is gone.
    #[error("the interface {0} is gone: {1}")]
    Gone(String, io::Error),
    /// Polling failed.
    #[error("cannot wait for packets: {0}")]
    Wait(io::Error),
    /// The script is gone.
    #[error("cannot talk to the script: {0}")]
    Talk(io::Error),
}

struct End {
    name: String,
    device: SyncDevice,
    /// The direction from here.
    direction: Direction,
}

struct Link {
    first: End,
    second: End,
    flows: Flows,
    cut: bool,
}

/// Creates the interfaces, prints `ready`, and forwards until standard input ends.
///
/// # Errors
/// When an interface cannot be created or disappears.
pub fn run(settings: &Settings) -> Result<(), LinkError> {
    let [first, second] = &settings.names;
    let mut link = Link {
        first: End::new(first, settings)?,
        second: End::new(second, settings)?,
        flows: Flows::default(),
        cut: false,
    };
    let mut commands = Commands {
        input: io::stdin().lock(),
        line: Vec::new(),
    };
    print_line("ready").map_err(LinkError::Talk)?;
    let mut buffer = vec![0; LARGEST_PACKET];
    loop {
        link.deliver()?;
        let ready = link.wait(&commands)?;
        if ready.commands && !commands.serve(&mut link).map_err(LinkError::Talk)? {
            return Ok(());
        }
        if ready.first {
            link.take_in(Side::First, &mut buffer)?;
        }
        if ready.second {
            link.take_in(Side::Second, &mut buffer)?;
        }
    }
}

struct Ready {
    commands: bool,
    first: bool,
    second: bool,
}

impl End {
    fn new(name: &str, settings: &Settings) -> Result<Self, LinkError> {
        let make = || {
            let device = DeviceBuilder::new()
                .name(name)
                .mtu(settings.mtu)
                .tx_queue_len(settings.tx_queue)
                .enable(false)
                .build_sync()?;
            device.set_nonblocking(true)?;
            Ok(device)
        };
        Ok(Self {
            name: name.to_owned(),
            device: make().map_err(|error| LinkError::Make(name.to_owned(), error))?,
            direction: Direction::new(settings.delay, settings.rate, settings.queue),
        })
    }

    fn gone(&self, error: io::Error) -> LinkError {
        LinkError::Gone(self.name.clone(), error)
    }

    /// Gives a packet to the kernel. An interface that is down takes none, which is not an error.
    fn send(&self, packet: &[u8]) -> Result<(), LinkError> {
        match self.device.send(packet) {
            Err(error) if error.raw_os_error() == Some(Errno::BADFD.raw_os_error()) => {
                Err(self.gone(error))
            }
            _ => Ok(()),
        }
    }
}

impl Link {
    fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::First => &mut self.first,
            Side::Second => &mut self.second,
        }
    }

    fn deliver(&mut self) -> Result<(), LinkError> {
        let now = Instant::now();
        while let Some(packet) = self.first.direction.take_arrived(now) {
            self.second.send(&packet)?;
        }
        while let Some(packet) = self.second.direction.take_arrived(now) {
            self.first.send(&packet)?;
        }
        Ok(())
    }

    fn wait(&self, commands: &Commands) -> Result<Ready, LinkError> {
        let next = [&self.first, &self.second]
            .into_iter()
            .filter_map(|end| end.direction.next_event())
            .min();
        let timeout = next.map(|next| {
            let wait = next.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            }
        });
        let mut polled = [
            PollFd::from_borrowed_fd(commands.input.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.first.device.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.second.device.as_fd(), PollFlags::IN),
        ];
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(LinkError::Wait(error.into())),
        }
        let [commands, first, second] = polled.map(|one| !one.revents().is_empty());
        Ok(Ready {
            commands,
            first,
            second,
        })
    }

    fn take_in(&mut self, side: Side, buffer: &mut [u8]) -> Result<(), LinkError> {
        for _ in 0..BATCH {
            let length = match self.end(side).device.recv(buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(self.end(side).gone(error)),
            };
            let packet = buffer.get(..length).unwrap_or_default();
            let segment = Segment::parse(packet);
            if self.cut {
                self.end(side).direction.count_vanished();
                if let Some(refusal) = segment.and_then(|segment| segment.refusal()) {
                    self.end(side).send(&refusal.to_packet())?;
                }
                continue;
            }
            if let Some(segment) = segment {
                self.flows.note(side, &segment);
            }
            // Each packet has its own time: reading a batch takes a while on a busy machine.
            self.end(side).direction.offer(Instant::now(), packet);
        }
        Ok(())
    }

    fn execute(&mut self, command: Command) -> io::Result<String> {
        match command {
            Command::Freeze(way) => self.each(way, |direction| direction.set_frozen(true)),
            Command::Thaw(way) => self.each(way, |direction| direction.set_frozen(false)),
            Command::Delay(delay, way) => self.each(way, |direction| direction.set_delay(delay)),
            Command::Rate(rate, way) => self.each(way, |direction| direction.set_rate(rate)),
            Command::Cut => {
                self.cut = true;
                self.each(Directions::Both, Direction::clear);
                let connections = self.flows.len();
                for (side, segment) in self.flows.take_resets() {
                    self.end(side)
                        .send(&segment.to_packet())
                        .map_err(io::Error::other)?;
                }
                return Ok(format!("ok connections={connections}"));
            }
            Command::Mend => self.cut = false,
            Command::Stats => return Ok(self.stats()),
        }
        Ok("ok".to_owned())
    }

    fn each(&mut self, way: Directions, mut change: impl FnMut(&mut Direction)) {
        for side in [Side::First, Side::Second] {
            if way.includes(side) {
                change(&mut self.end(side).direction);
            }
        }
    }

    fn stats(&self) -> String {
        let mut text = format!("ok connections={}", self.flows.len());
        for (way, end) in [("forward", &self.first), ("backward", &self.second)] {
            let counters = end.direction.counters();
            text += &format!(
                " {way}_packets={} {way}_bytes={} {way}_overflowed={} {way}_vanished={} {way}_inside={}",
                counters.packets,
                counters.bytes,
                counters.overflowed,
                counters.vanished,
                end.direction.bytes_inside(),
            );
        }
        text
    }
}

/// The script's lines.
struct Commands {
    input: StdinLock<'static>,
    line: Vec<u8>,
}

impl Commands {
    /// Executes the commands that have arrived; `false` at the end of input.
    fn serve(&mut self, link: &mut Link) -> io::Result<bool> {
        // Reads everything: poll does not report bytes that are in a buffer.
        let input = match self.input.fill_buf() {
            Ok(input) => input.to_vec(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        };
        self.input.consume(input.len());
        for byte in &input {
            if *byte != b'\n' {
                if self.line.len() < LONGEST_LINE {
                    self.line.push(*byte);
                }
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).into_owned();
            self.line.clear();
            match line.parse() {
                Ok(command) => print_line(&link.execute(command)?)?,
                Err(error) => print_line(&format!("error {error}"))?,
            }
        }
        Ok(!input.is_empty())
    }
}

fn print_line(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}
