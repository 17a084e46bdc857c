//! Explanations of a gateway: of a packet, of a flow, or of all that holds for a client.

use super::Failed;
use super::output::{Format, Output};
use equipoise::control::client::Client;
use equipoise::control::{Answer, ClientReport, ClientRow, Explained, FlowRow, Request, render};
use serde::Serialize;
use std::io::Write;

/// Asks for an explanation and prints it.
pub(super) fn explain(client: &mut Client, request: &Request, output: &mut Output<'_>) -> Result<(), Failed> {
    let json = output.format != Format::Text;
    let (mut flows, mut explained, mut row) = (Vec::new(), Vec::new(), None);
    for answer in client.rows(request)?.0 {
        match answer {
            Answer::Flow(flow) => flows.push(*flow),
            Answer::Explanation(explanation) => explained.push(*explanation),
            Answer::Client(client) => row = Some(client),
            _ => {}
        }
    }
    match (&row, json) {
        (None, true) => explained.iter().try_for_each(|explained| pretty(&explained.explanation, output.out)),
        (Some(client), true) => {
            pretty(&ClientReport { client: *client, listed_flows: flows, explanations: explained }, output.out)
        }
        (None, false) => {
            let text: String = explained.iter().map(|one| render::explanation_text(&one.explanation)).collect();
            output.text(&text)
        }
        (Some(client), false) => of_client(client, &flows, &explained, output),
    }
}

fn of_client(
    row: &ClientRow,
    flows: &[FlowRow],
    explained: &[Explained],
    output: &mut Output<'_>,
) -> Result<(), Failed> {
    let width = output.width;
    let out = &mut *output.out;
    if flows.is_empty() {
        writeln!(out, "client {} has no flows", row.client)?;
    } else {
        out.write_all(render::flows_table(flows, width).as_bytes())?;
    }
    if row.flows > row.listed {
        let more = row.flows - row.listed;
        writeln!(out, "... and {more} more: `eqctl flows --client {}` lists them all", row.client)?;
    }
    for Explained { service, packet, explanation } in explained {
        writeln!(out, "\nA new flow to service {}: {packet}\n", service.as_deref().unwrap_or_default())?;
        out.write_all(render::explanation_text(explanation).as_bytes())?;
    }
    if explained.is_empty() {
        writeln!(out, "no service listens on an address of the client's family")?;
    }
    Ok(())
}

fn pretty<T: Serialize>(value: &T, out: &mut dyn Write) -> Result<(), Failed> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(|error| Failed::Output(error.into()))?;
    Ok(out.write_all(b"\n")?)
}
