//! The process, under the names that every Prometheus client library uses. What a system does not
//! say is not there.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::descriptors;

/// Looks at the process each time that it is asked.
#[derive(Debug)]
pub(super) struct Process {
    /// When it was started, in seconds of Unix time.
    pub(super) started: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name, help, value: Option<f64>| match value {
            Some(value) => {
                let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                ConstGauge::new(value).encode(metric)
            }
            None => Ok(()),
        };
        gauge(
            "process_start_time_seconds",
            "When the process was started, in seconds of Unix time",
            Some(self.started),
        )?;
        gauge(
            "process_open_fds",
            "Open file descriptors",
            system::open_descriptors(),
        )?;
        gauge(
            "process_max_fds",
            "The most file descriptors that the process may have",
            descriptors::most().map(|most| most as f64),
        )?;
        gauge(
            "process_resident_memory_bytes",
            "Memory that the process has in RAM",
            system::resident_bytes(),
        )?;
        gauge(
            "tokio_alive_tasks",
            "Tasks of the program that have not ended",
            alive_tasks(),
        )?;
        if let Some(seconds) = system::processor_seconds() {
            let metric = encoder.encode_descriptor(
                "process_cpu_seconds",
                "Time that processors have worked for the process",
                None,
                MetricType::Counter,
            )?;
            ConstCounter::new(seconds).encode(metric)?;
        }
        Ok(())
    }
}

/// Of the runtime that this is asked in.
fn alive_tasks() -> Option<f64> {
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    Some(runtime.metrics().num_alive_tasks() as f64)
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs;

    pub(super) fn open_descriptors() -> Option<f64> {
        // One of them is the folder that is being read.
        let open = fs::read_dir("/proc/self/fd").ok()?.count();
        Some(open.saturating_sub(1) as f64)
    }

    pub(super) fn resident_bytes() -> Option<f64> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kibibytes: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024.0)
    }

    pub(super) fn processor_seconds() -> Option<f64> {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Some(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn open_descriptors() -> Option<f64> {
        None
    }

    pub(super) fn resident_bytes() -> Option<f64> {
        None
    }

    pub(super) fn processor_seconds() -> Option<f64> {
        None
    }
}
