//! Queries of twins, modules and job rows, page by page, and the paging that lists share.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::HubApi;
use super::call::{self, Call, CallError};

use crate::limits;

/// Request: the most items of a page.
const MAX_ITEM_COUNT: HeaderName = HeaderName::from_static("x-ms-max-item-count");
/// Answer: where the next page begins, absent on the last one; request: the same.
const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuation");

/// A query whose pages are read one after the other, so that only one is in memory.
#[derive(Debug)]
pub struct Query<'a> {
    api: &'a HubApi,
    /// None: the list of what we may reach.
    body: Option<String>,
    paging: Paging,
}

impl HubApi {
    /// One request for one row of a query: whether we may ask at all. It is not tried again.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn examine_query(&self) -> Result<(), CallError> {
        let body = json!({ "query": "SELECT deviceId FROM devices" }).to_string();
        let call = Call {
            body: Some(body),
            headers: vec![(MAX_ITEM_COUNT, HeaderValue::from_static("1"))],
            most: limits::PAGE,
            ..Call::new(Method::POST, call::path("/devices/query", &[]))
        };
        match self.call_once(&call).await?.document {
            Value::Array(_) => Ok(()),
            _ => Err(CallError::Answer("an array of rows")),
        }
    }

    /// A query in IoT Hub's query language. Nothing is sent before its first page is read.
    pub fn query(&self, text: &str) -> Query<'_> {
        Query {
            api: self,
            body: Some(json!({ "query": text }).to_string()),
            paging: Paging::default(),
        }
    }

    /// The devices to which we may open streams now, and their targets: for whom the hub's access file
    /// governs, which may run no query. Of our own hub alone. Nothing is sent before its first page is
    /// read.
    pub fn reachable(&self) -> Query<'_> {
        Query {
            api: self,
            body: None,
            paging: Paging::default(),
        }
    }
}

impl Query<'_> {
    /// The rows of the next page, which may be empty; `None` after the last one. May be dropped:
    /// the page is then read again.
    ///
    /// # Errors
    /// [`CallError`]; the page can be asked for again.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Value>>, CallError> {
        let call = match &self.body {
            Some(body) => Call {
                body: Some(body.clone()),
                ..Call::new(Method::POST, call::path("/devices/query", &[]))
            },
            None => Call::new(Method::GET, call::path("/access/devices", &[])),
        };
        let Some(document) = self.paging.next(self.api, call).await? else {
            return Ok(None);
        };
        match document {
            Value::Array(rows) => Ok(Some(rows)),
            _ => Err(CallError::Answer("an array of rows")),
        }
    }
}

/// Where the reading of a list stands.
#[derive(Debug, Default)]
pub(super) struct Paging {
    next: Option<HeaderValue>,
    is_over: bool,
}

impl Paging {
    /// The document of the next page, or none after the last.
    pub(super) async fn next(
        &mut self,
        api: &HubApi,
        mut call: Call<'_>,
    ) -> Result<Option<Value>, CallError> {
        if self.is_over {
            return Ok(None);
        }
        call.most = limits::PAGE;
        call.headers
            .push((MAX_ITEM_COUNT, limits::PAGE_ITEMS.into()));
        if let Some(token) = &self.next {
            call.headers.push((CONTINUATION, token.clone()));
        }
        let reply = api.call(&call).await?;
        self.turn(&reply.headers)?;
        Ok(Some(reply.document))
    }

    fn turn(&mut self, headers: &HeaderMap) -> Result<(), CallError> {
        let next = headers.get(CONTINUATION).filter(|token| !token.is_empty());
        // A hub that gives the same token for ever would keep us for ever.
        if next.is_some() && next == self.next.as_ref() {
            return Err(CallError::Answer("a page after the last one"));
        }
        self.next = next.cloned();
        self.is_over = self.next.is_none();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_end_where_there_is_no_token() {
        let headers = |token: Option<&'static str>| {
            token
                .map(|token| (CONTINUATION, HeaderValue::from_static(token)))
                .into_iter()
                .collect::<HeaderMap>()
        };
        let mut paging = Paging::default();
        paging.turn(&headers(Some("a"))).unwrap();
        assert!(!paging.is_over);
        paging.turn(&headers(Some("b"))).unwrap();
        assert!(paging.turn(&headers(Some("b"))).is_err());
        paging.turn(&headers(Some(""))).unwrap();
        assert!(paging.is_over);
    }
}
