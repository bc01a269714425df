//! Each operation beside its floor, one after the other, at both distances.

use std::time::Instant;

use anyhow::Result;

use super::arena::{Arena, Site, Way};
use super::report::{Line, Target};
use super::stats::{Series, ms};

/// What was measured at one distance.
#[derive(Default)]
pub struct Measured {
    bind: [Series; 2],
    repeated: Series,
    fetch: [Series; 2],
    unbind: [Series; 2],
    apply: Series,
    trip: Series,
}

async fn timed(round: usize, series: &mut Series, call: impl Future<Output = Result<()>>) -> Result<()> {
    let began = Instant::now();
    call.await?;
    series.push(round, ms(began.elapsed()));
    Ok(())
}

/// `times` of everything in each round; who is first changes each time.
///
/// # Errors
/// When something is not answered as it should be.
pub async fn measure(site: &Site<'_>, name: &str, rounds: usize, times: usize) -> Result<Measured> {
    let mut m = Measured::default();
    let Measured { bind, repeated, fetch, unbind, apply, trip } = &mut m;
    let ([bind, bind_floor], [fetch, fetch_floor], [unbind, unbind_floor]) = (bind, fetch, unbind);
    for round in 0..rounds {
        for i in 0..times {
            let (ours, floor) = (format!("{name}-{round}-{i}"), format!("floor-{name}-{round}-{i}"));
            for turn in [i % 2, (i + 1) % 2] {
                if turn == 0 {
                    timed(round, bind, site.bind(i, &ours)).await?;
                    timed(round, repeated, site.bind_again(i, &ours)).await?;
                    timed(round, fetch, site.fetch(i, &ours)).await?;
                    timed(round, unbind, site.unbind(i, &ours)).await?;
                    apply.push(round, ms(site.apply(i, &ours).await?));
                    site.unbind(i, &ours).await?;
                } else {
                    timed(round, bind_floor, site.floor.bind(&floor)).await?;
                    timed(round, fetch_floor, site.floor.fetch(&floor)).await?;
                    timed(round, unbind_floor, site.floor.unbind(&floor)).await?;
                    timed(round, trip, site.floor.round_trip("nobody")).await?;
                }
            }
        }
    }
    Ok(m)
}

/// On this machine, with broker and controller in one process and apart, and far from the managed cluster.
///
/// # Errors
/// As [`measure`].
pub async fn run(arena: &Arena, rounds: usize, times: usize) -> Result<Vec<Line>> {
    let near = measure(&arena.site("near", Way::Short).await?, "near", rounds, times).await?;
    let apart = measure(&arena.apart("apart").await?, "apart", rounds, times).await?;
    let far = measure(&arena.site("far", Way::Long).await?, "far", rounds, times.div_ceil(2)).await?;
    let mut lines = vec![];
    for (part, measured, bind, unbind) in [("loopback", &near, 1.1, 1.1), ("50 ms", &far, 1.05, 1.1)] {
        let Measured { bind: [b, b0], repeated, fetch: [f, f0], unbind: [u, u0], apply, .. } = measured;
        lines.push(Line::paired(part, "bind", "ms", b, b0).shall(Target::RatioAtMost(bind)));
        lines.push(Line::paired(part, "repeated bind / Secret read", "ms", repeated, f0));
        lines.push(Line::paired(part, "fetch / Secret read", "ms", f, f0).shall(Target::RatioAtMost(1.1)));
        lines.push(Line::paired(part, "unbind", "ms", u, u0).shall(Target::RatioAtMost(unbind)));
        lines.push(Line::paired(part, "apply until Ready / bind", "ms", apply, b0));
    }
    for (what, [ours, floor]) in [("bind", &apart.bind), ("unbind", &apart.unbind)] {
        lines.push(Line::paired("apart", what, "ms", ours, floor));
    }
    let [near_p50, far_p50] =
        [&near, &far].map(|m| [&m.bind[0], &m.unbind[0], &m.trip].map(|s| s.figure().p50));
    let trip = far_p50[2] - near_p50[2];
    lines.push(Line::single("50 ms", "round trip as it was", "ms", trip));
    for (what, which, number) in [("a bind", 0, 2.0), ("an unbind", 1, 1.0)] {
        let trips = (far_p50[which] - near_p50[which]) / trip;
        lines.push(
            Line::single("50 ms", format!("round trips of {what}"), "", trips).shall(Target::About(number)),
        );
    }
    Ok(lines)
}
