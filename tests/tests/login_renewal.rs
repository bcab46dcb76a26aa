//! Logins by name are renewed at a provider that rotates refresh tokens: what it gives exists nowhere
//! else, so that it is not lost, whatever becomes of the disk or of the program.

use std::fs;
use std::path::Path;

use common::hub_address::HubAddress;
use common::net::Dialer;
use common::report;
use common::tls::client_config;
use service_proxy::oidc;
use tests::programs::Program;
use tests::provider::{Held, refresh_token};
use tests::{TestProvider, soon, wait};

/// Renews the token of the id `known`: what is wrong, or nothing.
async fn renewed(provider: &TestProvider, file: &Path, known: &str) -> Result<(), String> {
    let hub = HubAddress::parse(&provider.host).unwrap();
    let tls = client_config(Some(&provider.ca_file()), None).unwrap();
    let dialer = Dialer::new(&tls);
    let result = soon("a renewal", oidc::renew(&hub, file, known, &dialer)).await;
    result.map_err(|error| report::chain(&error))
}

fn token(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let name = text
        .split(';')
        .find_map(|part| part.strip_prefix("SharedAccessKeyName="));
    name.unwrap().to_owned()
}

#[tokio::test]
async fn a_login_and_its_token_are_replaced() {
    let provider = TestProvider::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = provider.write_login(folder.path(), "hub.cs");
    renewed(&provider, &file, "~t0").await.unwrap();
    assert_eq!(
        (refresh_token(&file), token(&file)),
        ("refresh-1".into(), "~t1".into())
    );
    // Another process has found that out already.
    renewed(&provider, &file, "~t0").await.unwrap();
    assert_eq!(provider.asked(), 1);
    // Room that was taken was given back.
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|it| it.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["hub.cs", "hub.login", "hub.login-lock"]);
}

#[tokio::test]
async fn a_provider_is_not_asked_for_what_could_not_be_stored() {
    let provider = TestProvider::start().await;
    let folder = tempfile::tempdir().unwrap();
    // The longest name that the lock's file can have: that of a file beside it is too long.
    let file = provider.write_login(folder.path(), &format!("{}.cs", "x".repeat(244)));
    let error = renewed(&provider, &file, "~t0").await.unwrap_err();
    assert!(
        error.contains(".login cannot be written, so the identity provider is not asked"),
        "{error}"
    );
    assert!(!error.contains("log in again"), "{error}");
    assert_eq!(
        (provider.asked(), refresh_token(&file)),
        (0, "refresh-0".into())
    );
    // Nor when only the token's file cannot be written.
    let folder = tempfile::tempdir().unwrap();
    let file = provider.write_login(folder.path(), "hub.cs");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    fs::write(file.join("f"), "").unwrap();
    let error = renewed(&provider, &file, "~t0").await.unwrap_err();
    assert!(error.contains("hub.cs cannot be written"), "{error}");
    assert_eq!(provider.asked(), 0);
}

#[tokio::test]
async fn a_login_that_cannot_be_stored_is_renewed_from_memory_and_stored_later() {
    let provider = TestProvider::start().await;
    let base = tempfile::tempdir().unwrap();
    let (folder, away) = (base.path().join("here"), base.path().join("away"));
    fs::create_dir(&folder).unwrap();
    let file = provider.write_login(&folder, "hub.cs");
    provider.hold(Some(Held::Renewal));
    let (failed, ()) = tokio::join!(renewed(&provider, &file, "~t0"), async {
        wait("the provider is asked", || provider.asked() == 1).await;
        fs::rename(&folder, &away).unwrap();
        provider.hold(None);
    });
    assert!(failed.unwrap_err().contains("cannot write"));
    // Without the folder the provider is not asked again.
    let error = renewed(&provider, &file, "~t0").await.unwrap_err();
    assert!(!error.contains("log in again"), "{error}");
    assert_eq!(provider.asked(), 1);
    fs::rename(&away, &folder).unwrap();
    assert_eq!(refresh_token(&file), "refresh-0");
    renewed(&provider, &file, "~t0").await.unwrap();
    assert_eq!((provider.asked(), provider.refused()), (2, 0));
    assert_eq!(
        (refresh_token(&file), token(&file)),
        ("refresh-2".into(), "~t2".into())
    );
}

#[tokio::test]
async fn a_login_anew_while_the_provider_is_looked_for_stays() {
    let provider = TestProvider::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = provider.write_login(folder.path(), "hub.cs");
    provider.hold(Some(Held::Description));
    let (renewed, ()) = tokio::join!(renewed(&provider, &file, "~t0"), async {
        wait("the provider is looked for", || provider.described() == 1).await;
        let login = file.with_extension("login");
        let text = fs::read_to_string(&login).unwrap();
        fs::write(&login, text.replace("refresh-0", "anew")).unwrap();
        provider.hold(None);
    });
    renewed.unwrap();
    assert_eq!((provider.asked(), refresh_token(&file)), (0, "anew".into()));
}

#[tokio::test]
async fn a_login_is_stored_even_if_there_is_no_identity_token_with_it() {
    let provider = TestProvider::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = provider.write_login(folder.path(), "hub.cs");
    provider.be_silent(true);
    let error = renewed(&provider, &file, "~t0").await.unwrap_err();
    assert!(error.contains("gives no identity token"), "{error}");
    assert_eq!(refresh_token(&file), "refresh-1");
    provider.be_silent(false);
    renewed(&provider, &file, "~t0").await.unwrap();
    assert_eq!(provider.refused(), 0);
}

#[cfg(unix)]
#[tokio::test]
async fn the_program_ends_when_the_renewed_login_is_stored() {
    for hangs_up in [false, true] {
        if hangs_up && tests::programs::ignores_hangups() {
            println!("skipped: hangups are ignored");
            continue;
        }
        let provider = TestProvider::start().await;
        let folder = tempfile::tempdir().unwrap();
        let file = provider.write_login(folder.path(), "hub.cs");
        provider.hold(Some(Held::Renewal));
        let (ca, path) = (provider.ca_file(), file.to_str().unwrap());
        let words = [
            "--connection-string-file",
            path,
            "--ca-file",
            ca.to_str().unwrap(),
            "devices",
        ];
        let mut program = Program::start("service-proxy", &words, &[]);
        wait("the provider is asked", || provider.asked() == 1).await;
        let _stdin = match hangs_up {
            true => program.hang_up(),
            false => {
                program.terminate();
                program.take_stdin()
            }
        };
        program
            .line("service-proxy ends as soon as it is stored")
            .await;
        provider.hold(None);
        let code = if hangs_up { 129 } else { 1 };
        assert_eq!(
            program.exit_code().await,
            Some(code),
            "{}",
            program.output()
        );
        assert_eq!(refresh_token(&file), "refresh-1");
    }
}
