//! Commands that list rows of one kind.

use super::args::Measure;
use super::output::Output;
use super::{Failed, rows};
use equipoise::control::client::Client;
use equipoise::control::render::{self, CsvRow, Width};
use equipoise::control::{
    Answer, MonitorRow, NatRow, PoolRow, Request, RuleRow, ServerRow, ServiceRow, SourceRow, StickyRow, Totals,
};
use std::time::{Duration, Instant};

/// Returns a function that takes the row out of an answer of one kind, if it is of that kind.
macro_rules! row_of {
    (box $kind:ident) => {
        |answer| match answer {
            Answer::$kind(row) => Some(*row),
            _ => None,
        }
    };
    ($kind:ident) => {
        |answer| match answer {
            Answer::$kind(row) => Some(row),
            _ => None,
        }
    };
}

/// For how long rates are measured.
const MEASURED: Duration = Duration::from_secs(1);

/// The counters of the last look, for rates.
#[derive(Default)]
pub struct Before {
    services: Option<(Instant, Vec<ServiceRow>)>,
    servers: Option<(Instant, Vec<ServerRow>)>,
}

fn list<T: CsvRow>(
    client: &mut Client,
    request: &Request,
    pick: fn(Answer) -> Option<T>,
    output: &mut Output<'_>,
    text: fn(&[T], Width) -> String,
) -> Result<(), Failed> {
    let rows = rows(client, request, pick)?;
    output.rows(&rows, |width| text(&rows, width))
}

/// Asks for rows with counters, once or twice, and returns them with their rates if they were looked at before.
fn measured<T: Clone>(
    before: &mut Option<(Instant, Vec<T>)>,
    measure: &Measure,
    mut ask: impl FnMut() -> Result<Vec<T>, Failed>,
    fill: fn(&mut [T], &[T], f64),
) -> Result<Vec<T>, Failed> {
    if measure.rates && before.is_none() {
        *before = Some((Instant::now(), ask()?));
        std::thread::sleep(MEASURED);
    }
    let mut rows = ask()?;
    let now = Instant::now();
    let earlier = before.replace((now, rows.clone()));
    if let Some((at, earlier)) = earlier {
        fill(&mut rows, &earlier, (now - at).as_secs_f64());
    }
    Ok(rows)
}

pub fn servers(
    client: &mut Client,
    measure: &Measure,
    before: &mut Before,
    output: &mut Output<'_>,
) -> Result<(), Failed> {
    let ask = || rows(client, &Request::Servers, row_of!(box Server));
    let rows = measured(&mut before.servers, measure, ask, render::measure_servers)?;
    output.rows(&rows, |width| render::servers_table(&rows, width))
}

pub fn services(
    client: &mut Client,
    measure: &Measure,
    before: &mut Before,
    output: &mut Output<'_>,
) -> Result<(), Failed> {
    let ask = || rows(client, &Request::Services, row_of!(Service));
    let rows = measured(&mut before.services, measure, ask, render::measure_services)?;
    output.rows(&rows, |width| render::services_table(&rows, width))
}

pub fn counters(client: &mut Client, all: bool, output: &mut Output<'_>) -> Result<(), Failed> {
    let totals: Vec<Totals> = rows(client, &Request::Counters, row_of!(box Counters))?;
    output.rows(&totals, |width| {
        let table = |totals: &Totals| render::counters_table(&totals.engine, Some(&totals.device), all, width);
        totals.iter().map(table).collect()
    })
}

pub fn monitors(client: &mut Client, output: &mut Output<'_>) -> Result<(), Failed> {
    list::<MonitorRow>(client, &Request::Monitors, row_of!(box Monitor), output, render::monitors_table)
}

pub fn pools(client: &mut Client, output: &mut Output<'_>) -> Result<(), Failed> {
    list::<PoolRow>(client, &Request::Pools, row_of!(Pool), output, render::pools_table)
}

pub fn sources(client: &mut Client, output: &mut Output<'_>) -> Result<(), Failed> {
    list::<SourceRow>(client, &Request::Sources, row_of!(box Source), output, render::sources_table)
}

pub fn rules(client: &mut Client, output: &mut Output<'_>) -> Result<(), Failed> {
    list::<RuleRow>(client, &Request::Rules, row_of!(Rule), output, render::rules_table)
}

pub fn nat(client: &mut Client, output: &mut Output<'_>) -> Result<(), Failed> {
    list::<NatRow>(client, &Request::Nat, row_of!(Nat), output, render::nat_table)
}

pub fn sticky(client: &mut Client, request: &Request, output: &mut Output<'_>) -> Result<(), Failed> {
    let (answers, done) = client.rows(request)?;
    let rows: Vec<StickyRow> = answers.into_iter().filter_map(row_of!(box Sticky)).collect();
    output.rows(&rows, |width| render::sticky_table(&rows, width))?;
    if done.more && output.is_text() {
        output.text(&format!("... and more: list cut off by --limit {}\n", done.rows))?;
    }
    Ok(())
}
