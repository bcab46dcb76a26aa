//! Lists of devices and modules, however many there are: page by page, so that they are never in
//! memory at once.

use common::identity::DeviceId;
use common::table::Columns;
use serde_json::json;

use super::identity::last_activity;
use super::{CommandError, Session};
use crate::cli::Form;
use crate::documents::{self, Keys};
use crate::registry::{Cursor, Identity, Page};

/// Identities that are in memory at once.
const PAGE: usize = 500;
const HEAD: [&str; 4] = ["ID", "STATUS", "AUTHENTICATION", "LAST ACTIVITY"];

/// What a list is of.
#[derive(Debug)]
pub(super) enum Of {
    Devices,
    ModulesOf(DeviceId),
}

impl Of {
    async fn page(
        &self,
        session: &Session<'_>,
        after: Option<&Cursor>,
    ) -> Result<Page, CommandError> {
        Ok(match self {
            Self::Devices => session.registry.devices(after, PAGE).await?,
            Self::ModulesOf(device) => session.registry.modules(device, after, PAGE).await?,
        })
    }

    fn what(&self) -> String {
        match self {
            Self::Devices => "devices".to_owned(),
            Self::ModulesOf(device) => format!("modules of {device}"),
        }
    }
}

/// Prints a list, without keys in either form.
pub(super) async fn run(
    session: &mut Session<'_>,
    of: &Of,
    form: Form,
) -> Result<(), CommandError> {
    if form.json {
        array(session, of).await
    } else {
        table(session, of).await
    }
}

/// Reads the list twice: how wide the columns are is known at its end only.
async fn table(session: &mut Session<'_>, of: &Of) -> Result<(), CommandError> {
    let mut columns = Columns::new(&HEAD);
    let mut is_empty = true;
    let mut after = None;
    loop {
        let page = of.page(session, after.as_ref()).await?;
        is_empty &= page.identities.is_empty();
        page.identities.iter().for_each(|i| columns.fit(&row(i)));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if is_empty {
        session.say(&format!("there are no {}", of.what()));
        return Ok(());
    }
    loop {
        let page = of.page(session, after.as_ref()).await?;
        let rows: Vec<_> = page.identities.iter().map(row).collect();
        for line in columns.page(&rows) {
            session.line(&line)?;
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// The same text as of one JSON value, written as it grows.
async fn array(session: &mut Session<'_>, of: &Of) -> Result<(), CommandError> {
    let mut after = None;
    let mut is_empty = true;
    loop {
        let page = of.page(session, after.as_ref()).await?;
        for identity in &page.identities {
            // Indented as an element is.
            let text = format!(
                "{:#}",
                json!([documents::write(identity, None, Keys::LeftOut)])
            );
            let element = text.trim_start_matches("[\n").trim_end_matches("\n]");
            session.json_text(if is_empty { "[\n" } else { ",\n" })?;
            session.json_text(element)?;
            is_empty = false;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    session.json_text(if is_empty { "[]\n" } else { "\n]\n" })
}

fn row(identity: &Identity) -> [String; 4] {
    let id = &identity.id;
    [
        id.module
            .as_ref()
            .map_or_else(|| id.device.to_string(), ToString::to_string),
        identity.status.as_str().to_owned(),
        identity.authentication.kind().to_owned(),
        last_activity(identity),
    ]
}
