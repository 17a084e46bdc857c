//! What the operator has chosen: the list, the row, the order, the filter; and what a key does.

use super::data::{Busy, Data};
use equipoise::control::{Admin, FilterWords, FlowId, Kind, Request, ServerRow, ServiceRow, Target};
use ratatui::crossterm::event::{KeyCode, KeyModifiers};
use std::cmp::Ordering;

/// The lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum List {
    Services,
    #[default]
    Servers,
    Flows,
    Drops,
}

impl List {
    pub const ALL: [List; 4] = [List::Services, List::Servers, List::Flows, List::Drops];

    /// What its rows can be sorted by.
    pub const fn orders(self) -> &'static [&'static str] {
        match self {
            List::Services | List::Servers => &["name", "flows", "rate"],
            List::Flows => &["rate", "bytes", "packets", "age", "idle"],
            List::Drops => &["packets", "rate"],
        }
    }

    const fn place(self) -> usize {
        self as usize
    }
}

/// What is asked of the operator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Look,
    /// A filter is being written.
    Filter(String),
    /// A change waits for a yes.
    Confirm(String, Box<Request>),
    /// A text covers the lists.
    Text(String, u16),
}

/// What the loop is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    Nothing,
    End,
    Refresh,
    Send(Box<Request>),
}

#[derive(Debug, Default)]
pub struct App {
    pub list: List,
    pub mode: Mode,
    /// Of each list the selected row and the order.
    selected: [usize; 4],
    order: [usize; 4],
    filter: Option<FilterWords>,
    /// The last line: what was said, and whether it is an error.
    pub message: Option<(String, bool)>,
    lost: Option<String>,
    paused: bool,
}

/// The keys.
pub const HELP: &str = "\
1 2 3 4, Tab   services, servers, flows, drops
up, down, j, k select a row
s              sort by the next key of the list
/              filter flows: host 198.51.100.7 and not port 443
Enter          of a service or server: its flows
d              drain the selected server, or enable it again
x              kill the selected flow
e              explain the selected flow: why it went where it goes
p              pause
Esc            close, or remove the filter
q              quit
";

fn by(a: f64, b: f64) -> Ordering {
    b.total_cmp(&a)
}

impl App {
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    pub fn filter(&self) -> Option<&FilterWords> {
        self.filter.as_ref()
    }

    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    pub fn selected(&self, list: List) -> usize {
        self.selected[list.place()]
    }

    /// The name of the order of a list.
    pub fn order(&self, list: List) -> &'static str {
        list.orders()[self.order[list.place()]]
    }

    pub fn answered(&mut self) {
        self.lost = None;
    }

    pub fn failed(&mut self, why: &str) {
        self.lost = Some(why.lines().next().unwrap_or_default().to_owned());
    }

    /// Shows what became of a request: a line, or a text of several.
    pub fn said(&mut self, said: Result<String, String>) {
        match said {
            Ok(text) if text.trim_end().lines().count() > 1 => self.mode = Mode::Text(text, 0),
            Ok(text) => self.message = Some((text.trim_end().to_owned(), false)),
            Err(text) => self.message = Some((text, true)),
        }
    }

    /// Keeps the selection within what there is.
    pub fn follow(&mut self, data: &Data) {
        for list in List::ALL {
            let rows = self.len(list, data);
            let own = &mut self.selected[list.place()];
            *own = (*own).min(rows.saturating_sub(1));
        }
    }

    fn len(&self, list: List, data: &Data) -> usize {
        match list {
            List::Services => data.services.len(),
            List::Servers => data.servers.len(),
            List::Flows => data.flows.len(),
            List::Drops => data.drops.len(),
        }
    }

    pub fn services<'d>(&self, data: &'d Data) -> Vec<&'d ServiceRow> {
        let mut rows: Vec<&ServiceRow> = data.services.iter().collect();
        let rate = |row: &ServiceRow| row.rates.map_or(0.0, |rates| rates.bytes_in + rates.bytes_out);
        match self.order(List::Services) {
            "flows" => rows.sort_by_key(|row| std::cmp::Reverse(row.flows)),
            "rate" => rows.sort_by(|a, b| by(rate(a), rate(b))),
            _ => {}
        }
        rows
    }

    pub fn servers<'d>(&self, data: &'d Data) -> Vec<&'d ServerRow> {
        let mut rows: Vec<&ServerRow> = data.servers.iter().collect();
        let rate = |row: &ServerRow| row.rates.map_or(0.0, |rates| rates.bytes_in + rates.bytes_out);
        match self.order(List::Servers) {
            "flows" => rows.sort_by_key(|row| std::cmp::Reverse(row.flows)),
            "rate" => rows.sort_by(|a, b| by(rate(a), rate(b))),
            _ => {}
        }
        rows
    }

    pub fn flows<'d>(&self, data: &'d Data) -> Vec<&'d Busy> {
        let mut rows: Vec<&Busy> = data.flows.iter().collect();
        match self.order(List::Flows) {
            "rate" => rows.sort_by(|a, b| by(a.rate.unwrap_or(0.0), b.rate.unwrap_or(0.0))),
            "packets" => rows.sort_by_key(|flow| std::cmp::Reverse(flow.row.packets_in + flow.row.packets_out)),
            "age" => rows.sort_by_key(|flow| std::cmp::Reverse(flow.row.age_ms)),
            "idle" => rows.sort_by_key(|flow| std::cmp::Reverse(flow.row.idle_ms)),
            // As the gateway sorted them.
            _ => {}
        }
        rows
    }

    fn flow(&self, data: &Data) -> Option<FlowId> {
        self.flows(data).get(self.selected(List::Flows)).map(|flow| flow.row.id)
    }

    /// Does what a key stands for.
    pub fn key(&mut self, code: KeyCode, modifiers: KeyModifiers, data: &Data) -> Wish {
        if code == KeyCode::Char('c') && modifiers.contains(KeyModifiers::CONTROL) {
            return Wish::End;
        }
        match std::mem::take(&mut self.mode) {
            Mode::Look => self.look(code, data),
            Mode::Filter(text) => self.write_filter(text, code),
            Mode::Confirm(_, request) if matches!(code, KeyCode::Char('y' | 'Y') | KeyCode::Enter) => {
                Wish::Send(request)
            }
            Mode::Confirm(..) => Wish::Nothing,
            Mode::Text(text, line) => {
                let last = u16::try_from(text.lines().count()).unwrap_or(u16::MAX).saturating_sub(1);
                let line = match code {
                    KeyCode::Down | KeyCode::Char('j' | ' ') | KeyCode::PageDown => line.saturating_add(1).min(last),
                    KeyCode::Up | KeyCode::Char('k') | KeyCode::PageUp => line.saturating_sub(1),
                    _ => return Wish::Nothing,
                };
                self.mode = Mode::Text(text, line);
                Wish::Nothing
            }
        }
    }

    fn write_filter(&mut self, mut text: String, code: KeyCode) -> Wish {
        match code {
            KeyCode::Esc => return Wish::Nothing,
            KeyCode::Enter if text.trim().is_empty() => {
                self.filter = None;
                return Wish::Refresh;
            }
            KeyCode::Enter => match text.parse::<FilterWords>() {
                Ok(words) => return self.show_flows(words),
                Err(error) => {
                    self.message = Some((format!("column {}: {}", error.column, error.what), true));
                }
            },
            KeyCode::Backspace => drop(text.pop()),
            KeyCode::Char(c) if !c.is_control() => text.push(c),
            _ => {}
        }
        self.mode = Mode::Filter(text);
        Wish::Nothing
    }

    fn show_flows(&mut self, words: FilterWords) -> Wish {
        (self.filter, self.list, self.message) = (Some(words), List::Flows, None);
        self.selected[List::Flows.place()] = 0;
        Wish::Refresh
    }

    fn look(&mut self, code: KeyCode, data: &Data) -> Wish {
        self.message = None;
        let place = self.list.place();
        match code {
            KeyCode::Char('q') => return Wish::End,
            KeyCode::Char(c @ '1'..='4') => self.list = List::ALL[c as usize - '1' as usize],
            KeyCode::Tab => self.list = List::ALL[(place + 1) % 4],
            KeyCode::BackTab => self.list = List::ALL[(place + 3) % 4],
            KeyCode::Down | KeyCode::Char('j') => {
                self.selected[place] = (self.selected[place] + 1).min(self.len(self.list, data).saturating_sub(1));
            }
            KeyCode::Up | KeyCode::Char('k') => self.selected[place] = self.selected[place].saturating_sub(1),
            KeyCode::Char('s') => self.order[place] = (self.order[place] + 1) % self.list.orders().len(),
            KeyCode::Char('/') => {
                self.mode = Mode::Filter(self.filter.as_ref().map_or(String::new(), ToString::to_string));
            }
            KeyCode::Char('p') => self.paused = !self.paused,
            KeyCode::Char('?' | 'h') => self.mode = Mode::Text(HELP.into(), 0),
            KeyCode::Esc if self.filter.take().is_some() => return Wish::Refresh,
            KeyCode::Enter => return self.enter(data),
            KeyCode::Char('d') => self.drain(data),
            KeyCode::Char('x') => {
                if let Some(flow) = self.flow(data).filter(|_| self.list == List::Flows) {
                    self.mode = Mode::Confirm(format!("kill flow {flow}"), Box::new(Request::Kill { flow }));
                }
            }
            KeyCode::Char('e') => {
                if let Some(flow) = self.flow(data).filter(|_| self.list == List::Flows) {
                    return Wish::Send(Box::new(Request::ExplainFlow { flow }));
                }
                self.message = Some(("select a flow first: 3, then up and down".into(), false));
            }
            _ => {}
        }
        Wish::Nothing
    }

    /// Shows the flows of the selected service or server.
    fn enter(&mut self, data: &Data) -> Wish {
        let words = match self.list {
            List::Services => {
                self.services(data).get(self.selected(self.list)).map(|row| format!("service {}", row.service))
            }
            List::Servers => {
                self.servers(data).get(self.selected(self.list)).map(|row| format!("server {}", row.name()))
            }
            List::Flows | List::Drops => None,
        };
        match words.and_then(|words| words.parse().ok()) {
            Some(words) => self.show_flows(words),
            None => Wish::Nothing,
        }
    }

    fn drain(&mut self, data: &Data) {
        let servers = self.servers(data);
        let Some(row) = servers.get(self.selected(List::Servers)).filter(|_| self.list == List::Servers) else {
            self.message = Some(("select a server first: 2, then up and down".into(), false));
            return;
        };
        let (verb, state) = match row.admin {
            Admin::Enabled => ("drain", "\"draining\""),
            Admin::Draining | Admin::Disabled => ("enable", "\"enabled\""),
        };
        let object = Target::new(Kind::Server, row.name());
        let values = [("state".to_owned(), Some(state.to_owned()))].into();
        let request = Request::Set { object, values, deadline_ms: None };
        self.mode = Mode::Confirm(format!("{verb} server {}", row.name()), Box::new(request));
    }
}
