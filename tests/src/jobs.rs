//! Jobs as a service makes, reads and awaits them.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::RawService;
use crate::raw_service::refusal;

/// No job of a test takes longer, on a busy machine either.
const TIME_LIMIT: Duration = Duration::from_secs(120);

impl RawService {
    /// A call with a JSON answer.
    ///
    /// # Errors
    /// The number of the refusal.
    pub async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, u32> {
        let mut call = self.call(method, path);
        if let Some(body) = body {
            call = call.body(body.to_string());
        }
        let answer = call.send().await.unwrap();
        if answer.status() != 200 {
            return Err(refusal(answer).await.1);
        }
        Ok(serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    /// Makes a job.
    ///
    /// # Errors
    /// The number of the refusal.
    pub async fn make_job(&self, id: &str, body: &Value) -> Result<Value, u32> {
        self.json(Method::PUT, &format!("/jobs/v2/{id}"), Some(body))
            .await
    }

    /// A job.
    pub async fn job(&self, id: &str) -> Value {
        let path = format!("/jobs/v2/{id}?api-version=2021-04-12");
        self.json(Method::GET, &path, None).await.unwrap()
    }

    /// A job once it is as wanted.
    pub async fn job_when(&self, id: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let job = self.job(id).await;
            if is_wanted(&job) {
                return job;
            }
            assert!(started.elapsed() < TIME_LIMIT, "{job}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// A job once it has ended.
    pub async fn ended_job(&self, id: &str) -> Value {
        self.job_when(id, |job| job["endTime"].is_string()).await
    }

    /// All rows of a query.
    pub async fn rows(&self, query: &str) -> Vec<Value> {
        let body = json!({ "query": query }).to_string();
        let (mut rows, mut after) = (Vec::new(), None::<String>);
        loop {
            let mut call = self.call(Method::POST, "/devices/query").body(body.clone());
            if let Some(after) = &after {
                call = call.header("x-ms-continuation", after);
            }
            let answer = call.send().await.unwrap();
            assert_eq!(answer.status(), 200, "{query}");
            let next = answer.headers().get("x-ms-continuation");
            after = next.map(|next| next.to_str().unwrap().to_owned());
            let page = answer.bytes().await.unwrap();
            rows.extend(serde_json::from_slice::<Vec<Value>>(&page).unwrap());
            if after.is_none() {
                return rows;
            }
        }
    }

    /// How many devices a condition selects.
    pub async fn count(&self, condition: &str) -> u64 {
        let query = format!("SELECT COUNT() AS n FROM devices WHERE {condition}");
        let rows = self.rows(&query).await;
        rows.first().map_or(0, |row| row["n"].as_u64().unwrap())
    }
}
