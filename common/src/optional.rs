//! An optional future, as an arm of `select!`.

/// Waits for the future, or forever if there is none. May be dropped if the future may.
pub async fn or_never<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_future_it_never_ends() {
        tokio::select! {
            biased;
            () = or_never(None::<std::future::Ready<()>>) => panic!("it ended"),
            seven = or_never(Some(std::future::ready(7))) => assert_eq!(seven, 7),
        }
    }
}
