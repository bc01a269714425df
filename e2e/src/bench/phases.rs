//! Where the time from PUT to 201 goes, by the operator's own metrics.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::arena::{Arena, Way};
use super::floor::STEPS;
use super::report::{Line, Target};
use super::stats::{Series, count, ms};

const PART: &str = "phases";
/// Of a PUT in the broker; together they are the whole.
const BROKER: [&str; 3] = ["create", "wait", "read"];
/// Of the wait in the controller; the rest of it are the watches.
const CONTROLLER: [&str; 5] = ["limit", "rbac", "token", "secret", "status"];
/// How far the sum may be from the whole.
const SPARE: f64 = 0.05;

/// Sum and count of a histogram, by the series' labels.
fn histogram(metrics: &str, name: &str, labels: &str) -> Option<(f64, f64)> {
    let value = |suffix: &str| {
        let start = format!("kyma_bindings_{name}_{suffix}{{{labels}}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&start)?.parse::<f64>().ok())
    };
    Some((value("sum")?, value("count")?))
}

/// Mean of what came between two scrapes, milliseconds.
fn mean(before: &str, after: &str, name: &str, labels: &str) -> Option<f64> {
    let (sum, count) = histogram(after, name, labels)?;
    let (sum_before, count_before) = histogram(before, name, labels).unwrap_or_default();
    (count > count_before).then(|| (sum - sum_before) * 1000.0 / (count - count_before))
}

/// `times` binds a round, one after the other; the means of each round.
///
/// # Errors
/// When a bind fails, or the operator tells no phase.
pub async fn run(arena: &Arena, rounds: usize, times: usize) -> Result<Vec<Line>> {
    let site = arena.site("phases", Way::Short).await?;
    let names: Vec<_> = BROKER.into_iter().chain(CONTROLLER).collect();
    let mut phases: Vec<_> = names.iter().map(|_| Series::default()).collect();
    let mut floor = STEPS.map(|_| Series::default());
    let [mut client, mut whole, mut watches, mut sum] = [(); 4].map(|()| Series::default());
    for round in 0..rounds {
        let before = site.metrics().await?;
        let began = Instant::now();
        for i in 0..times {
            site.bind(i, &format!("phases-{round}-{i}")).await?;
        }
        client.push(round, ms(began.elapsed()) / count(times));
        let after = site.metrics().await?;
        for i in 0..times {
            site.unbind(i, &format!("phases-{round}-{i}")).await?;
        }
        let mut steps = [Duration::ZERO; STEPS.len()];
        for i in 0..times {
            let name = format!("floor-phases-{round}-{i}");
            let took = site.floor.bind_by_steps(&name).await?;
            steps.iter_mut().zip(took).for_each(|(all, took)| *all += took);
            site.floor.unbind(&name).await?;
        }
        for (series, all) in floor.iter_mut().zip(steps) {
            series.push(round, ms(all) / count(times));
        }
        let mut means = Vec::new();
        for (name, series) in names.iter().zip(&mut phases) {
            let labels = format!("phase=\"{name}\"");
            let mean = mean(&before, &after, "bind_phase_duration_seconds", &labels);
            means.push(mean.with_context(|| format!("no phase {name} in the metrics"))?);
            series.push(round, means[means.len() - 1]);
        }
        let labels = "route=\"service_binding\",method=\"PUT\"";
        let answered = mean(&before, &after, "http_request_duration_seconds", labels);
        whole.push(round, answered.context("no PUT in the metrics")?);
        sum.push(round, means[..BROKER.len()].iter().sum());
        watches.push(round, means[1] - means[BROKER.len()..].iter().sum::<f64>());
    }
    let line = |what: &str, series: &Series| Line::alone(PART, what, "ms", series.figure());
    let beside = |name: &str, what: &str, series: &Series| match STEPS.iter().position(|step| *step == name) {
        Some(step) => Line::paired(PART, what, "ms", series, &floor[step]),
        None => line(what, series),
    };
    let mut lines = vec![line("PUT until 201, as the client sees it", &client)];
    let adds_up =
        Line::paired(PART, "create + wait + read / PUT until 201, in the operator", "ms", &sum, &whole);
    lines.push(adds_up.shall(Target::RatioAtLeast(1.0 - SPARE)));
    lines.extend(BROKER.iter().zip(&phases).map(|(name, series)| beside(name, name, series)));
    let within = |name: &str| format!("in the wait: {name}");
    lines.extend(
        CONTROLLER.iter().zip(&phases[BROKER.len()..]).map(|(name, s)| beside(name, &within(name), s)),
    );
    lines.push(line("in the wait: watches, less what they are ahead of answers", &watches));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_of_what_came_between() {
        let scrape = |sum: f64, count: u32| {
            format!(
                "# TYPE\nkyma_bindings_x_sum{{phase=\"a\"}} {sum}\nkyma_bindings_x_count{{phase=\"a\"}} {count}\n"
            )
        };
        let (before, after) = (scrape(1.0, 10), scrape(1.5, 20));
        let found = |before: &str| mean(before, &after, "x", "phase=\"a\"").map(|mean| format!("{mean:.0}"));
        assert_eq!(found(&before).as_deref(), Some("50"));
        assert_eq!(found("").as_deref(), Some("75"));
        assert_eq!(found(&after), None, "nothing came");
        assert_eq!(mean(&before, &after, "x", "phase=\"b\""), None);
    }
}
