//! `POST /devices/query` (`docs/protocol.md`, "Queries"). Who may call is judged before.

mod jobs;
mod twins;

use common::wire::problem::ErrorCode;
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use super::connections::Connections;
use super::draft;
use super::paging::{CONTINUATION, ITEM_TYPE, PAGE_SIZE};
use crate::answer::{Answer, List};
use crate::documents::invalid;
use crate::limits;
use crate::query::{Continuation, Position, Query, Source};
use crate::refusal::Refusal;
use crate::registry::Registry;

/// A query. What it says is in its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call;

#[derive(Deserialize)]
struct Body {
    query: String,
}

/// What is asked for.
#[derive(Debug, Clone)]
struct Request {
    query: Query,
    /// Where an earlier page has ended.
    after: Option<Position>,
    /// Rows of this page.
    limit: usize,
}

/// A page of a result.
#[derive(Debug, Default)]
struct Rows {
    list: List,
    count: u64,
    /// Behind which more rows may follow; `None`: there are no more.
    next: Option<Position>,
}

impl Rows {
    /// Adds a row; false: it is for the next page, as this one is large enough.
    fn push(&mut self, row: &Value) -> bool {
        if self.list.size() > limits::QUERY_PAGE_SIZE {
            return false;
        }
        self.list.push(row);
        self.count += 1;
        true
    }
}

/// Answers a query with one page of its result. Dropped, a query ends soon.
///
/// # Errors
/// [`Refusal`] of the registry's family.
pub async fn handle<C: Connections + Clone + 'static>(
    connections: &C,
    registry: &dyn Registry,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Answer, Refusal> {
    let Body { query: text } = draft::read(body)?;
    let query = Query::parse(&text)?;
    let continuation = continuation(headers, &text, &query)?;
    let left = continuation
        .as_ref()
        .map_or(query.top(), |continuation| continuation.left);
    let limit = page_size(headers)?;
    let is_last = left.is_some_and(|left| left <= limit as u64);
    let request = Request {
        limit: left.map_or(limit, |left| {
            limit.min(usize::try_from(left).unwrap_or(limit))
        }),
        after: continuation.map(|continuation| continuation.after),
        query: query.clone(),
    };
    let rows = match query.source() {
        Source::Jobs => jobs::page(registry, &request).await?,
        Source::Devices | Source::Modules => {
            twins::page(registry, connections, request, limits::QUERY_TIME).await?
        }
    };
    let item_type = match (query.source(), query.selects_documents()) {
        (Source::Jobs, _) => "DeviceJob",
        (_, true) => "Twin",
        (_, false) => "Raw",
    };
    let count = rows.count;
    // A page that ends early is not the last one of TOP.
    let is_last = is_last && left == Some(count);
    let mut answer = rows.list.into_answer();
    let answered = answer.headers_mut();
    answered.insert(ITEM_TYPE, HeaderValue::from_static(item_type));
    if let Some(after) = rows.next.filter(|_| !is_last) {
        let left = left.map(|left| left.saturating_sub(count));
        let token = Continuation { after, left }.to_token(&text);
        let token = HeaderValue::try_from(token)
            .map_err(|_| Refusal::new(ErrorCode::SERVER_ERROR, "a continuation is no header"))?;
        answered.insert(CONTINUATION, token);
    }
    Ok(answer)
}

fn continuation(
    headers: &HeaderMap,
    text: &str,
    query: &Query,
) -> Result<Option<Continuation>, Refusal> {
    let Some(token) = headers.get(CONTINUATION).filter(|token| !token.is_empty()) else {
        return Ok(None);
    };
    let token = token.to_str().ok();
    token
        .and_then(|token| Continuation::from_token(token, text, query))
        .map(Some)
        .ok_or_else(|| {
            invalid(format!(
                "{CONTINUATION} is not that of a page of this query."
            ))
        })
}

/// As documented, a number that does not fit is replaced by one that does.
fn page_size(headers: &HeaderMap) -> Result<usize, Refusal> {
    let Some(size) = headers.get(PAGE_SIZE) else {
        return Ok(limits::QUERY_PAGE);
    };
    let size = size
        .to_str()
        .ok()
        .and_then(|size| size.trim().parse::<i64>().ok());
    let size = size.ok_or_else(|| invalid(format!("{PAGE_SIZE} is not a number.")))?;
    let size = usize::try_from(size).unwrap_or(0);
    Ok(match size {
        0 => limits::QUERY_PAGE,
        size => size.min(limits::QUERY_PAGE),
    })
}

#[cfg(test)]
mod tests;
