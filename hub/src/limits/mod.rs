//! Timeouts, queue depths and size caps of the hub, each with its reason; those that it
//! shares with others are `common`'s. Sizes are bytes. What an operator may tune is in [`Limits`],
//! and handed down; the rest are constants.

mod kinds;
mod share;
mod tuned;

use std::time::Duration;

pub use common::limits::*;

pub use self::kinds::{Limit, Over, Whose};
pub use self::share::Share;
pub use self::tuned::{Limits, LimitsInForce};

// --- Handshakes ---

/// How long an accepted stream waits for both of its legs, counted from the accept.
pub const LEG_ARRIVAL: Duration = Duration::from_secs(60);
/// TLS at the hub, then again a request head or MQTT CONNECT, or a stalled answer:
/// strangers that say nothing, or read nothing, are gone after this.
pub const STRANGER: Duration = Duration::from_secs(30);

// --- Credentials ---

/// Longest streaming token: the C sample copies `Bearer <token>` into 1,024 bytes.
pub const STREAM_TOKEN_LENGTH: usize = 1016;

// --- Endings ---

/// So long the hub keeps back its answer to a leg's Close until the other leg has all that was
/// sent before it: an answered Close shall mean that nothing was lost.
pub const LEG_CONFIRM: Duration = Duration::from_secs(10);
/// The surviving leg's answer to our Close, at the hub.
pub const LEG_CLOSE: Duration = Duration::from_secs(10);

// --- Threads ---

/// How long a thread for work that blocks waits for more of it. The registry is looked at twice a second,
/// and each time another thread does it: with tokio's 10 s those of a burst would all stay.
pub const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(1);

// --- Twins (IoT Hub's limits, unless a reason stands there) ---

/// Desired properties, or reported ones, as compact JSON without metadata.
pub const TWIN_SECTION: usize = 32 << 10;
/// A twin's tags, as compact JSON.
pub const TWIN_TAGS: usize = 8 << 10;
/// One patch as it comes in: a whole section, with room for blanks and nulls.
pub const TWIN_PATCH: usize = 2 * TWIN_SECTION;
/// A property's name.
pub const TWIN_KEY: usize = 1 << 10;
/// A property's text.
pub const TWIN_STRING: usize = 4 << 10;
/// Objects and arrays within each other, the section itself not counted.
pub const TWIN_DEPTH: usize = 10;
/// Smallest whole number.
pub const TWIN_INTEGER_MIN: i64 = -(1 << 52);
/// Largest whole number.
pub const TWIN_INTEGER_MAX: i64 = (1 << 52) - 1;
/// Twin writes of one hub in one transaction: the database has one writer, and the disk's
/// time for one is its time for many.
pub const TWIN_WRITES: usize = 256;

// --- Direct methods (IoT Hub's limits, unless a reason stands there) ---

/// The payload of a call, or of its answer.
pub const METHOD_PAYLOAD: usize = 128 << 10;
/// Most seconds to wait for a device's connection, and for its answer.
pub const METHOD_SECONDS: u64 = 300;
/// How long a device that is connected may take to subscribe direct methods, at least: SDKs
/// connect first, and back ends call as soon as the device is connected.
pub const METHOD_SUBSCRIBE: Duration = Duration::from_secs(2);

// --- Jobs ---

/// Jobs that have not ended.
pub const JOBS_OPEN: u64 = 1_000;
/// Jobs that have ended, and are remembered,
pub const JOBS_KEPT: u64 = 10_000;
/// for so long (IoT Hub's limit).
pub const JOB_HISTORY: Duration = Duration::from_secs(30 * 24 * 3600);
/// Jobs that run at once (as in IoT Hub's largest tier).
pub const JOBS_AT_ONCE: usize = 10;
/// Devices that one job has at work at once: a device may take its time to answer, and each is a
/// few KiB.
pub const JOB_DEVICES_AT_ONCE: usize = 256;
/// How long after the hub's start a job that is older than this start waits for devices to connect
/// again: SDKs try again after delays of up to half a minute.
pub const JOB_RECONNECT: Duration = Duration::from_secs(60);
/// Bytes of a device's answer that its row keeps: 10,000 rows are as many in the database.
pub const JOB_PAYLOAD: usize = 8 << 10;
/// How long a job may run, in seconds, unless it says something else (IoT Hub's default),
pub const JOB_SECONDS: u64 = 3_600;
/// and at most: as long as a job is remembered.
pub const JOB_SECONDS_MOST: u64 = 30 * 24 * 3600;
/// Jobs of a page (IoT Hub's limit).
pub const JOBS_PER_PAGE: usize = 100;

// --- Messages (IoT Hub's limits, unless a reason stands there) ---

/// Messages that wait for one device.
pub const MESSAGES_WAITING: u64 = 50;
/// Bytes of one,
pub const MESSAGE: usize = 64 << 10;
/// and of its properties, as they stand in the topic, which MQTT limits to 64 KiB.
pub const MESSAGE_PROPERTIES: usize = 16 << 10;
/// How long a message waits that does not say,
pub const MESSAGE_LIFE: Duration = Duration::from_secs(3_600);
/// and one that does, at most.
pub const MESSAGE_LIFE_MOST: Duration = Duration::from_secs(2 * 24 * 3_600);
/// How often a message is delivered.
pub const MESSAGE_DELIVERIES: u64 = 10;
/// Bytes of a telemetry message.
pub const TELEMETRY: usize = 256 << 10;
/// Most telemetry messages of one answer,
pub const TELEMETRY_PAGE: usize = 100;
/// and most seconds that it waits for the first.
pub const TELEMETRY_WAIT: u64 = 60;

// --- Queries ---

/// Characters of a query or condition (IoT Hub's limit).
pub const QUERY_LENGTH: usize = 8_192;
/// Parentheses, functions and signs within each other: recursion over them needs few KiB of stack.
pub const QUERY_DEPTH: usize = 64;
/// Values of ORDER BY: a page ends at a position in a header, which has them all.
pub const QUERY_ORDERS: usize = 4;
/// Queries over twins at the same time: they are work for a core each.
pub const QUERIES: usize = 2;
/// KiB of the database that the connection of a query keeps: the upper levels of its trees over
/// 100,000 twins, which would else be read again for each row.
pub const QUERY_CACHE: i64 = 8 << 10;
/// How long a query waits for others.
pub const QUERY_WAIT: Duration = Duration::from_secs(10);
/// How long a query looks for rows: then it answers with those that it has, or gives up if it needs
/// all. Clients wait longer.
pub const QUERY_TIME: Duration = Duration::from_secs(20);
/// Rows of a page, unless fewer are asked for (IoT Hub's limit).
pub const QUERY_PAGE: usize = 100;
/// Bytes of a page: a page of large twins has fewer rows.
pub const QUERY_PAGE_SIZE: usize = 4 << 20;
/// Groups of one query in memory,
pub const QUERY_GROUPS: usize = 20_000;
/// and bytes of the values that they are grouped by.
pub const QUERY_GROUP_SIZE: usize = 8 << 20;

// --- HTTP ---

/// Largest request body at the hub: a bulk request of 100 identities fits.
pub const HTTP_BODY: usize = 512 << 10;
/// How long a request's body may take.
pub const HTTP_BODY_TIME: Duration = Duration::from_secs(30);

// --- Registry ---

/// Identities in one bulk request (IoT Hub's limit).
pub const BULK_ITEMS: usize = 100;
/// Devices in one list, unless fewer are asked for (IoT Hub's limit).
pub const DEVICES_PER_LIST: usize = 1_000;
/// Changes the registry remembers: far more than happen between two looks at them.
pub const CHANGES_KEPT: u64 = 10_000;
/// Longest text that explains a status (IoT Hub's limit).
pub const STATUS_REASON_LENGTH: usize = 128;
/// How long a write to the registry waits for another process's.
pub const REGISTRY_BUSY: Duration = Duration::from_secs(10);

// --- Approvals ---

/// How long a stream initiation is kept waiting for an approver, each time that it comes: less than
/// what clients and proxies wait for an answer.
pub const APPROVAL_HOLD: Duration = Duration::from_secs(10);
/// Who waits for an approver asks again within this time, or the request is withdrawn.
pub const APPROVAL_REPEAT: Duration = Duration::from_secs(30);
/// How long a request waits that was made ahead of time.
pub const APPROVAL_ASKED: Duration = Duration::from_secs(86_400);
/// Characters of a reason.
pub const APPROVAL_REASON: usize = 500;

// --- Numbers ---

/// Connections in all, per listener of the hub.
pub const CONNECTIONS: usize = 100_000;
