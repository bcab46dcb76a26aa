//! The service itself: what the service manager starts, and tells to stop.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use clap::Parser as _;
use common::service_manager::{self, State};
use common::{limits, output, places, shutdown};
use eventlog::EventLog;
use log::{Level, Log as _, Record};
use windows_service::service::{
    ServiceControl, ServiceControlAccept, ServiceExitCode, ServiceState, ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{
    self, ServiceControlHandlerResult, ServiceStatusHandle,
};
use windows_service::{define_windows_service, service_dispatcher};

use super::{NAME, NOT_BY_MANAGER, RELOAD, ServiceError, code};
use crate::cli::{Cli, ServiceConfigArgs};
use crate::config;

/// How long the manager waits for news of a start or a stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program, from its command line to its exit code.
type Program = fn(Cli) -> ExitCode;

static PROGRAM: OnceLock<(ServiceConfigArgs, Program)> = OnceLock::new();
static RESULT: OnceLock<ExitCode> = OnceLock::new();
static MANAGER: OnceLock<ServiceStatusHandle> = OnceLock::new();

define_windows_service!(entry, service_main);

/// Runs the program as the service manager asks for it. Returns after the end of the service. To be
/// called once in a process, before anything is printed.
///
/// # Errors
/// [`ServiceError`]: also when this process was not started by the service manager.
pub fn run(args: ServiceConfigArgs, program: Program) -> Result<ExitCode, ServiceError> {
    let _ = PROGRAM.set((args, program));
    service_dispatcher::start(NAME, entry).map_err(|source| match code(&source) {
        Some(NOT_BY_MANAGER) => ServiceError::ByHand,
        _ => ServiceError::Manager {
            doing: "run",
            source,
        },
    })?;
    Ok(RESULT.get().copied().unwrap_or(ExitCode::FAILURE))
}

fn service_main(_: Vec<OsString>) {
    let Some((args, program)) = PROGRAM.get() else {
        return;
    };
    let Ok(manager) = service_control_handler::register(NAME, control) else {
        return;
    };
    let _ = MANAGER.set(manager);
    report(ServiceState::StartPending, 0);
    if let Ok(log) = EventLog::new(NAME, Level::Trace) {
        output::redirect(Box::new(move |level, text| write(&log, level, text)));
    }
    service_manager::report_by(|state| match state {
        State::Ready => report(ServiceState::Running, 0),
        State::Stopping => report(ServiceState::StopPending, 0),
        State::Status(_) | State::Watchdog => {}
    });
    let config = args.config.clone();
    let config = config.unwrap_or_else(|| places::of_system().join(config::FILE));
    let line = [
        "device-proxy".into(),
        "--config".into(),
        config.into_os_string(),
    ];
    let result = match Cli::try_parse_from::<_, OsString>(line) {
        Ok(cli) => program(cli),
        Err(_) => ExitCode::FAILURE,
    };
    let _ = RESULT.set(result);
    report(ServiceState::Stopped, number(result));
}

/// The manager's orders, on a thread of its own.
fn control(control: ServiceControl) -> ServiceControlHandlerResult {
    match control {
        ServiceControl::Stop | ServiceControl::Shutdown => {
            report(ServiceState::StopPending, 0);
            shutdown::ask_to_stop();
        }
        ServiceControl::UserEvent(order) if order.to_raw() == RELOAD => shutdown::ask_to_reload(),
        ServiceControl::Interrogate => {}
        _ => return ServiceControlHandlerResult::NotImplemented,
    }
    ServiceControlHandlerResult::NoError
}

fn report(state: ServiceState, code: u32) {
    let is_pending = matches!(
        state,
        ServiceState::StartPending | ServiceState::StopPending
    );
    let accepts = ServiceControlAccept::STOP | ServiceControlAccept::SHUTDOWN;
    let status = ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state: state,
        // The one order to stop is the last order: the handler is gone after it.
        controls_accepted: match state {
            ServiceState::Running => accepts,
            _ => ServiceControlAccept::empty(),
        },
        exit_code: match code {
            0 => ServiceExitCode::Win32(0),
            code => ServiceExitCode::ServiceSpecific(code),
        },
        checkpoint: 0,
        wait_hint: if is_pending {
            PATIENCE + limits::DRAIN
        } else {
            Duration::ZERO
        },
        process_id: None,
    };
    if let Some(manager) = MANAGER.get() {
        let _ = manager.set_service_status(status);
    }
}

/// An exit code that the program has returned, as a number.
fn number(result: ExitCode) -> u32 {
    let known = [0, common::report::USAGE, 128 + 2];
    let known = known
        .into_iter()
        .find(|code| ExitCode::from(*code) == result);
    known.map_or(1, u32::from)
}

fn write(log: &EventLog, level: tracing::Level, text: &str) {
    let level = match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::Trace,
    };
    let mut record = Record::builder();
    log.log(&record.level(level).args(format_args!("{text}")).build());
}
