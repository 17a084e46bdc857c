//! `eqctl top`: the gateway on a full screen. `data` asks and remembers, `app` holds what the operator has chosen, `view`
//! draws both; only this file touches the terminal.

mod app;
mod data;
#[cfg(test)]
mod tests;
mod view;

use super::Failed;
use app::{App, Wish};
use data::Data;
use equipoise::control::client::Client;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

/// Shows the gateway until the operator has seen enough; asks again every `seconds`.
pub fn top(client: Client, socket: &Path, seconds: u32) -> Result<(), Failed> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let why = "top needs a terminal; `eqctl servers --watch` and the like do not";
        return Err(Failed::Output(io::Error::other(why)));
    }
    let mut terminal = ratatui::try_init()?;
    let result = run(&mut terminal, client, socket, Duration::from_secs(seconds.into()));
    ratatui::restore();
    result
}

fn run(terminal: &mut ratatui::DefaultTerminal, client: Client, socket: &Path, every: Duration) -> Result<(), Failed> {
    let (mut app, mut data, mut client) = (App::default(), Data::default(), Some(client));
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next && !app.is_paused() {
            client = client.or_else(|| Client::connect(socket).ok());
            let asked = client.as_mut().map(|client| data.ask(client, app.filter(), Instant::now()));
            match asked {
                Some(Ok(())) => app.answered(),
                Some(Err(error)) => {
                    app.failed(&error.to_string());
                    client = None;
                }
                None => app.failed("no gateway answers; trying again"),
            }
            next = Instant::now() + every;
        }
        app.follow(&data);
        terminal.draw(|frame| view::draw(frame, &app, &data))?;
        if !event::poll(next.saturating_duration_since(Instant::now()).min(every))? {
            continue;
        }
        let Event::Key(key) = event::read()? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        match app.key(key.code, key.modifiers, &data) {
            Wish::Nothing => {}
            Wish::End => return Ok(()),
            Wish::Refresh => next = Instant::now(),
            Wish::Send(request) => {
                let said = client.as_mut().map(|client| data::send(client, &request));
                app.said(said.unwrap_or_else(|| Err("no gateway answers".into())));
                next = Instant::now();
            }
        }
    }
}
