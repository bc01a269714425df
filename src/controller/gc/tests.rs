use super::*;

use std::future::pending;

#[tokio::test(start_paused = true)]
async fn one_that_fails_keeps_nothing_behind_it() {
    let asked = Mutex::new(Vec::new());
    let act = |number: &usize| {
        let number = *number;
        asked.lock().push(number);
        async move {
            match number {
                1 => Err(Failure::RateLimited),
                3 => Err(Failure::Unauthorized),
                5 => pending().await,
                _ => Ok(()),
            }
        }
    };
    let until = Instant::now() + LONGEST;
    let (done, stopped) = each(&[0, 1, 2, 3, 4], until, act).await;
    assert_eq!((done, asked.lock().split_off(0)), (3, vec![0, 1, 2, 3, 4]));
    assert!(matches!(stopped, Err(Stopped::Cluster(Failure::RateLimited))), "the first: {stopped:?}");
    let (done, stopped) = each(&[0, 5, 2], until, act).await;
    assert_eq!((done, asked.lock().split_off(0)), (1, vec![0, 5]));
    assert!(
        matches!(stopped, Err(Stopped::OutOfTime)),
        "our own time says nothing of the cluster: {stopped:?}"
    );
    let (done, stopped) = each(&[1, 5], Instant::now() + LONGEST, act).await;
    assert!(done == 0 && matches!(stopped, Err(Stopped::Cluster(Failure::RateLimited))), "{stopped:?}");
    assert!(each(&[0, 2], Instant::now() + LONGEST, act).await.1.is_ok());
}
