//! Installs, removes, starts and stops the service. Everything here blocks.

use std::ffi::OsString;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::places;
use windows_service::service::{
    Service, ServiceAccess, ServiceAction, ServiceActionType, ServiceErrorControl, ServiceExitCode,
    ServiceFailureActions, ServiceFailureResetPeriod, ServiceInfo, ServiceSidType,
    ServiceStartType, ServiceState, ServiceStatus, ServiceType, UserEventCode,
};
use windows_service::service_manager::{ServiceManager, ServiceManagerAccess};

use super::{
    ALREADY_RUNNING, EXISTS, INVALID_LEVEL, NAME, NOT_ACTIVE, RELOAD, ServiceError, close_folder,
    code,
};
use crate::cli::{ServiceCommand, ServiceConfigArgs};
use crate::config;

/// How long the service may take to start or to stop: longer than open streams have.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Time between looks at its state.
const LOOK: Duration = Duration::from_millis(100);
/// The account that it runs as; the name is the same in every language of Windows.
const ACCOUNT: &str = r"NT AUTHORITY\LocalService";
/// When it is started again after a failure: the last delay counts from then on.
const RESTARTS: [Duration; 3] = [
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
];
/// After how long without a failure the delays begin anew.
const CALM: Duration = Duration::from_secs(24 * 60 * 60);

/// Carries out a command, except `run`. With what was done, for the user.
///
/// # Errors
/// [`ServiceError`].
pub fn carry_out(command: ServiceCommand) -> Result<String, ServiceError> {
    match command {
        ServiceCommand::Install(args) => install(args),
        ServiceCommand::Uninstall => uninstall(),
        ServiceCommand::Start => start().map(|()| format!("the service {NAME} runs\n")),
        ServiceCommand::Stop => stop().map(|()| format!("the service {NAME} is stopped\n")),
        ServiceCommand::Reload => reload(),
        ServiceCommand::Run(_) => Err(ServiceError::ByHand),
    }
}

/// Whether this process may install services: an administrator's.
pub fn can_install() -> bool {
    let access = ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE;
    ServiceManager::local_computer(None::<&str>, access).is_ok()
}

/// Whether the service is installed.
pub fn is_installed() -> bool {
    open("find", ServiceAccess::QUERY_STATUS).is_ok()
}

/// Starts the service, after its end if it runs.
///
/// # Errors
/// [`ServiceError`].
pub fn restart() -> Result<(), ServiceError> {
    stop()?;
    start()
}

fn install(args: ServiceConfigArgs) -> Result<String, ServiceError> {
    let program = std::env::current_exe().map_err(at("this program"))?;
    let folder = places::of_system();
    let config = match args.config {
        Some(config) => std::path::absolute(config).map_err(at("the configuration file"))?,
        None => folder.join(config::FILE),
    };
    let info = description(program, config.clone());
    let access = ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE;
    let failed = during("install");
    let manager = ServiceManager::local_computer(None::<&str>, access).map_err(failed)?;
    // An action that starts the service needs the right to start it.
    let access = ServiceAccess::CHANGE_CONFIG | ServiceAccess::START;
    let (service, is_new) = match manager.create_service(&info, access) {
        Err(error) if code(&error) == Some(EXISTS) => {
            let service = manager.open_service(NAME, access).map_err(failed)?;
            service.change_config(&info).map_err(failed)?;
            (service, false)
        }
        created => (created.map_err(failed)?, true),
    };
    set_up(&service).map_err(during("set up"))?;
    eventlog::register(NAME)?;
    close_folder(&folder, !is_new).map_err(ServiceError::Folder)?;
    let next = if config.exists() {
        "now: device-proxy service start"
    } else {
        "now: device-proxy enrol CODE@HUB, which writes it and starts the service"
    };
    Ok(format!(
        "installed the service {NAME}; it starts with Windows, with {}\n{next}\n",
        config.display(),
    ))
}

fn description(program: PathBuf, config: PathBuf) -> ServiceInfo {
    let arguments = ["service", "run", "--config"].map(OsString::from);
    ServiceInfo {
        name: NAME.into(),
        display_name: "Device streams (device-proxy)".into(),
        service_type: ServiceType::OWN_PROCESS,
        start_type: ServiceStartType::AutoStart,
        error_control: ServiceErrorControl::Normal,
        executable_path: program,
        launch_arguments: arguments.into_iter().chain([config.into()]).collect(),
        dependencies: Vec::new(),
        account_name: Some(ACCOUNT.into()),
        account_password: None,
    }
}

fn set_up(service: &Service) -> windows_service::Result<()> {
    service.set_description("Tunnels to this machine, by its device ID, through a hub.")?;
    unless_unknown(service.set_config_service_sid_info(ServiceSidType::Unrestricted))?;
    let restarts = RESTARTS.map(|delay| ServiceAction {
        action_type: ServiceActionType::Restart,
        delay,
    });
    service.update_failure_actions(ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(CALM),
        reboot_msg: None,
        command: None,
        actions: Some(restarts.to_vec()),
    })?;
    // Also where the program reports its failure and ends by itself.
    unless_unknown(service.set_failure_actions_on_non_crash_failures(true))
}

/// Wine does not know every setting, and needs none; every Windows since Vista does.
fn unless_unknown(set: windows_service::Result<()>) -> windows_service::Result<()> {
    match set {
        Err(error) if code(&error) == Some(INVALID_LEVEL) => Ok(()),
        set => set,
    }
}

fn uninstall() -> Result<String, ServiceError> {
    stop()?;
    let service = open("remove", ServiceAccess::DELETE)?;
    service.delete().map_err(during("remove"))?;
    // The events that were logged stay; without a source they only show their text.
    let _ = eventlog::deregister(NAME);
    let folder = places::of_system();
    Ok(format!(
        "removed the service {NAME}; its files are still in {}\n",
        folder.display(),
    ))
}

fn start() -> Result<(), ServiceError> {
    let service = open("start", ServiceAccess::START | ServiceAccess::QUERY_STATUS)?;
    match service.start::<&str>(&[]) {
        Err(error) if code(&error) == Some(ALREADY_RUNNING) => {}
        started => started.map_err(during("start"))?,
    }
    let status = wait(&service, "started", |state| {
        matches!(state, ServiceState::Running | ServiceState::Stopped)
    })?;
    match (status.current_state, status.exit_code) {
        (ServiceState::Running, _) => Ok(()),
        (_, ServiceExitCode::Win32(code) | ServiceExitCode::ServiceSpecific(code)) => {
            Err(ServiceError::Ended(code))
        }
    }
}

fn stop() -> Result<(), ServiceError> {
    let service = open("stop", ServiceAccess::STOP | ServiceAccess::QUERY_STATUS)?;
    match service.stop() {
        Err(error) if code(&error) == Some(NOT_ACTIVE) => return Ok(()),
        stopped => stopped.map_err(during("stop"))?,
    };
    wait(&service, "stopped", |state| state == ServiceState::Stopped).map(|_| ())
}

fn reload() -> Result<String, ServiceError> {
    let service = open("reload", ServiceAccess::USER_DEFINED_CONTROL)?;
    UserEventCode::from_raw(RELOAD)
        .map_err(|error| windows_service::Error::ParseValue("control", error))
        .and_then(|order| service.notify(order))
        .map_err(during("reload"))?;
    Ok(format!(
        "the service {NAME} reads its configuration again; the event log says what changed\n"
    ))
}

fn open(doing: &'static str, access: ServiceAccess) -> Result<Service, ServiceError> {
    let manager = ServiceManager::local_computer(None::<&str>, ServiceManagerAccess::CONNECT);
    let manager = manager.map_err(during(doing))?;
    manager.open_service(NAME, access).map_err(during(doing))
}

/// Looks until the service is in such a state: Windows offers no event for it that is safe to use.
fn wait(
    service: &Service,
    done: &'static str,
    is_it: impl Fn(ServiceState) -> bool,
) -> Result<ServiceStatus, ServiceError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = service.query_status().map_err(during("watch"))?;
        if is_it(status.current_state) {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            return Err(ServiceError::Slow(done));
        }
        sleep(LOOK);
    }
}

fn during(doing: &'static str) -> impl Fn(windows_service::Error) -> ServiceError + Copy {
    move |source| ServiceError::Manager { doing, source }
}

fn at(path: &'static str) -> impl FnOnce(std::io::Error) -> ServiceError {
    move |source| ServiceError::Path(path, source)
}
