//! Queries over what jobs did.

use super::{Request, Rows};
use crate::limits;
use crate::query::{Narrowing, Page, Selection};
use crate::registry::{JobRow, Registry, RegistryError};

/// Rows read at a time: each may have the whole answer of a method.
const BATCH: usize = 64;

/// Reads a page.
pub(super) async fn page(
    registry: &dyn Registry,
    request: &Request,
) -> Result<Rows, RegistryError> {
    let Request {
        query,
        after,
        limit,
    } = request;
    let narrowing = match query.narrowing() {
        narrowing @ Narrowing::Ids(..) => narrowing,
        _ => Narrowing::All,
    };
    let mut selection = Selection::new(query, after.clone(), *limit);
    let behind = after.as_ref().filter(|_| !query.has_order());
    let mut behind = behind.map(|after| after.tie().to_owned());
    let deadline = tokio::time::Instant::now() + limits::QUERY_TIME;
    'reading: loop {
        if tokio::time::Instant::now() > deadline {
            return Err(RegistryError::TooLong);
        }
        let rows = registry
            .job_rows(&narrowing, behind.as_deref(), BATCH)
            .await?;
        if rows.is_empty() {
            break;
        }
        for JobRow { key, document } in rows {
            if selection
                .add(&key, &document, || document.clone())
                .is_break()
            {
                break 'reading;
            }
            behind = Some(key);
        }
    }
    let Page { rows, has_more } = selection.finish();
    let mut page = Rows::default();
    let mut is_cut = false;
    for (position, document) in rows {
        is_cut = !page.push(&query.row(document));
        if is_cut {
            break;
        }
        page.next = Some(position);
    }
    if !(has_more || is_cut) {
        page.next = None;
    }
    Ok(page)
}
