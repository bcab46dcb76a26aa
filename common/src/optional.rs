//! A future that there may be or not, as an arm of `select!`.

/// Waits for the future; for ever where there is none. May be dropped if the future may.
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
    async fn nothing_never_comes() {
        tokio::select! {
            biased;
            () = or_never(None::<std::future::Ready<()>>) => panic!("it came"),
            seven = or_never(Some(std::future::ready(7))) => assert_eq!(seven, 7),
        }
    }
}
