//! Queries over twins. The first pass reads what decides which ones are on the page, the second
//! one what the page has of them: both of one moment of the registry.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::identity::DeviceIdentity;
use common::locks::lock;

use super::{Request, Rows};
use crate::api::connections::Connections;
use crate::documents::{invalid, twin};
use crate::query::{Groups, Page, Position, Selection, Source};
use crate::refusal::Refusal;
use crate::registry::{DeviceTwin, Members, Registry, RegistryError, Scan, TwinSnapshot};

/// Reads a page, for about so long.
pub(super) async fn page<C: Connections + Clone + 'static>(
    registry: &dyn Registry,
    connections: &C,
    request: Request,
    time: Duration,
) -> Result<Rows, Refusal> {
    // The work is on another thread, and may be alone there at the end.
    let result = Arc::new(Mutex::new(None));
    let is_wanted = Arc::new(AtomicBool::new(true));
    let _unwanted_at_the_end = Unwanted(Arc::clone(&is_wanted));
    let (connections, given) = (connections.clone(), Arc::clone(&result));
    registry
        .query_twins(Box::new(move |snapshot| {
            let page = Reader {
                snapshot,
                connections: &connections,
                request: &request,
                is_wanted: &is_wanted,
                deadline: Instant::now() + time,
            }
            .page()?;
            *lock(&given) = Some(page);
            Ok(())
        }))
        .await?;
    let page = lock(&result).take();
    page.unwrap_or_else(|| Err(RegistryError::TooLong.into()))
}

/// Tells the work that nobody waits for it any more.
struct Unwanted(Arc<AtomicBool>);

impl Drop for Unwanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

struct Reader<'a, C> {
    snapshot: &'a mut dyn TwinSnapshot,
    connections: &'a C,
    request: &'a Request,
    is_wanted: &'a AtomicBool,
    deadline: Instant,
}

impl<C: Connections> Reader<'_, C> {
    fn page(mut self) -> Result<Result<Rows, Refusal>, RegistryError> {
        if self.request.query.has_groups() {
            self.groups()
        } else {
            self.documents().map(Ok)
        }
    }

    fn groups(&mut self) -> Result<Result<Rows, Refusal>, RegistryError> {
        let Request {
            query,
            after,
            limit,
        } = self.request;
        let mut groups = Groups::new(query);
        let mut failure = None;
        let is_whole = self.scan(None, |_, document| match groups.add(document) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        })?;
        if let Some(error) = failure {
            return Ok(Err(invalid(format!("{error}."))));
        }
        if is_whole.is_err() {
            return Err(RegistryError::TooLong);
        }
        let Page { rows, has_more } = groups.finish(after.as_ref(), *limit);
        let mut page = Rows::default();
        let mut is_cut = false;
        for (position, row) in rows {
            is_cut = !page.push(&row);
            if is_cut {
                break;
            }
            page.next = Some(position);
        }
        if !(has_more || is_cut) {
            page.next = None;
        }
        Ok(Ok(page))
    }

    fn documents(&mut self) -> Result<Rows, RegistryError> {
        let Request {
            query,
            after,
            limit,
        } = self.request;
        let mut selection = Selection::new(query, after.clone(), *limit);
        let behind = after.as_ref().filter(|_| !query.has_order());
        let behind = behind.and_then(|after| identity(after.tie()));
        let scanned = self.scan(behind.as_ref(), |id, document| {
            selection.add(&name(id), document, || id.clone())
        })?;
        let Page { rows, has_more } = selection.finish();
        let mut page = Rows::default();
        let fields = query.result_fields();
        let mut is_cut = false;
        for (position, id) in rows {
            if let Some(twin) = self.find(&id, &fields)? {
                let activity = self.connections.activity(&twin.identity);
                is_cut = !page.push(&query.row(twin::part(twin, activity, &fields)));
                if is_cut {
                    break;
                }
            }
            page.next = Some(position);
        }
        match scanned {
            _ if has_more || is_cut => {}
            Ok(()) => page.next = None,
            // Not all was looked at. Without an order, what was found is the beginning of the
            // rest.
            Err(Some(last)) if !query.has_order() => {
                page.next = Some(Position::behind(name(&last)))
            }
            Err(_) => return Err(RegistryError::TooLong),
        }
        Ok(page)
    }

    /// One that has become unreadable between the passes is left out, as in the first one.
    fn find(
        &mut self,
        id: &DeviceIdentity,
        fields: &crate::query::Fields,
    ) -> Result<Option<DeviceTwin>, RegistryError> {
        match self.snapshot.find(id, fields) {
            Err(RegistryError::Damaged { .. }) => Ok(None),
            found => found,
        }
    }

    /// Shows the documents of the query's source, with the fields that it needs. `Err`: time is
    /// up, or nobody waits any more, behind this document.
    fn scan(
        &mut self,
        after: Option<&DeviceIdentity>,
        mut visit: impl FnMut(&DeviceIdentity, &serde_json::Value) -> ControlFlow<()>,
    ) -> Result<Result<(), Option<DeviceIdentity>>, RegistryError> {
        let Self {
            snapshot,
            connections,
            request,
            is_wanted,
            deadline,
        } = self;
        let fields = request.query.fields();
        let scan = Scan {
            members: match request.query.source() {
                Source::Modules => Members::Modules,
                _ => Members::Devices,
            },
            narrowing: &request.query.narrowing(),
            after,
            fields: &fields,
        };
        let needs_activity = twin::needs_activity(&fields);
        let (mut seen, mut end) = (0_u32, Ok(()));
        snapshot.scan(&scan, &mut |twin| {
            let id = twin.identity.id.clone();
            let activity = match needs_activity {
                true => connections.activity(&twin.identity),
                false => twin.identity.activity,
            };
            let document = twin::part(twin, activity, &fields);
            if visit(&id, &document).is_break() {
                return ControlFlow::Break(());
            }
            // A look at the clock costs about as much as a row without its twin.
            seen = seen.wrapping_add(1);
            let is_late = seen % 64 == 0 && Instant::now() > *deadline;
            if is_late || !is_wanted.load(Ordering::Relaxed) {
                end = Err(Some(id));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(end)
    }
}

/// The name of a document: in the order of the names, documents are in the order of their ids. No
/// id has this character.
const BETWEEN: char = '\0';

fn name(id: &DeviceIdentity) -> String {
    match &id.module {
        None => id.device.as_str().to_owned(),
        Some(module) => format!("{}{BETWEEN}{module}", id.device),
    }
}

/// The way back; `None`: it is no name.
fn identity(name: &str) -> Option<DeviceIdentity> {
    let (device, module) = match name.split_once(BETWEEN) {
        None => (name, None),
        Some((device, module)) => (device, Some(module)),
    };
    crate::documents::id(device, module).ok()
}
