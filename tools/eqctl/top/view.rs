//! Draws the screen: 80 columns by 24 lines are enough, more are used where they are.

use super::app::{App, List, Mode};
use super::data::{Busy, Data, Dropped, PAST};
use equipoise::control::render::{bytes, count, duration, rate, server_state};
use equipoise::control::{ServerRow, ServiceRow};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph};

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);

pub fn draw(frame: &mut Frame<'_>, app: &App, data: &Data) {
    let area = frame.area();
    let body = area.height.saturating_sub(3);
    // The header of a list is one line; the list that is looked at gets what is left.
    let rows = [data.services.len(), data.servers.len(), data.flows.len().max(1), data.drops.len().max(1)];
    let heights = shares(rows, body, app.list as usize);
    let [head, middle, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    frame.render_widget(Paragraph::new(head_lines(app, data)), head);
    let areas: [Rect; 4] = Layout::vertical(heights.map(Constraint::Length)).areas(middle);
    for (list, area) in List::ALL.into_iter().zip(areas) {
        draw_list(frame, area, (app, data), list);
    }
    frame.render_widget(Paragraph::new(foot_line(app)), foot);
    if let Mode::Text(text, from) = &app.mode {
        frame.render_widget(Clear, middle);
        let lines: Vec<Line<'_>> = text.lines().map(Line::raw).collect();
        frame.render_widget(Paragraph::new(lines).scroll((*from, 0)), middle);
    }
}

/// Divides lines among the lists: each gets its header and up to four rows, then the selected one, then the others.
fn shares(rows: [usize; 4], lines: u16, selected: usize) -> [u16; 4] {
    let want = rows.map(|rows| u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(1));
    let mut shares = want.map(|want| want.min(4));
    let mut left = lines.saturating_sub(shares.iter().sum());
    for place in [selected, 1, 2, 0, 3] {
        let more = want[place].saturating_sub(shares[place]).min(left);
        (shares[place], left) = (shares[place] + more, left - more);
    }
    shares
}

fn head_lines<'a>(app: &App, data: &Data) -> Vec<Line<'a>> {
    let Some(status) = &data.status else { return vec![Line::raw("asking the gateway ...")] };
    let share = |used: u64, most: u64| if most == 0 { 0.0 } else { used as f64 * 100.0 / most as f64 };
    let in_table = status.flows.saturating_sub(status.half_open);
    let first = format!(
        "equipoise {}  up {}  flows {} of {} ({:.1} %)  half-open {}",
        status.version,
        duration(status.uptime_ms),
        count(in_table),
        count(status.max_flows),
        share(in_table, status.max_flows),
        count(status.half_open),
    );
    let pressure = match status.pressures.first() {
        None => String::new(),
        Some(row) => format!("  {} is full", row.of.text()),
    };
    let troubles = match status.troubles.len() {
        0 => String::new(),
        one => format!("  {one} parts of the system missing"),
    };
    let second = match &data.sum {
        None => "measuring ...".to_owned(),
        Some(sum) => format!(
            "{}  {} packets/s  {} new flows/s  {} dropped/s",
            rate(sum.bytes),
            count(sum.packets.round() as u64),
            count(sum.flows.round() as u64),
            count(sum.dropped.round() as u64),
        ),
    };
    let state = if app.is_paused() { "  PAUSED" } else { "" };
    let alarm = Span::styled(format!("{pressure}{troubles}{state}"), BOLD);
    vec![Line::styled(first, BOLD), Line::from(vec![Span::raw(second), alarm])]
}

fn foot_line<'a>(app: &App) -> Line<'a> {
    match (&app.mode, &app.message, app.lost()) {
        (Mode::Filter(text), message, _) => {
            let why = message.as_ref().map_or(String::new(), |(text, _)| format!("   {text}"));
            Line::from(vec![Span::raw(format!("filter: {text}")), Span::styled("_", REVERSED), Span::styled(why, BOLD)])
        }
        (Mode::Confirm(what, _), ..) => Line::styled(format!("{what}? y or n"), REVERSED),
        (Mode::Text(..), ..) => Line::styled("up and down to read on, Esc to close", DIM),
        (Mode::Look, _, Some(lost)) => Line::styled(lost.to_owned(), REVERSED),
        (Mode::Look, Some((text, is_wrong)), None) => {
            Line::styled(text.lines().next().unwrap_or_default().to_owned(), if *is_wrong { REVERSED } else { BOLD })
        }
        (Mode::Look, None, None) => {
            Line::styled("? help  Tab list  s sort  / filter  Enter flows  d drain  e explain  q quit", DIM)
        }
    }
}

/// Fits a text into a column, to the left or to the right.
fn cell(text: &str, width: usize, right: bool) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let len = plain.chars().count();
    if len > width {
        let kept: String = plain.chars().take(width.saturating_sub(1)).collect();
        return kept + if width > 0 { "…" } else { "" };
    }
    let blanks = " ".repeat(width - len);
    if right { blanks + &plain } else { plain + &blanks }
}

/// A column: header, width, whether it is aligned right. Width 0 takes what is left.
type Column = (&'static str, usize, bool);

fn line_of(columns: &[Column], cells: &[String], width: usize) -> String {
    let fixed: usize = columns.iter().map(|(_, width, _)| width + 2).sum::<usize>() - 2;
    let wide = columns.iter().filter(|(_, width, _)| *width == 0).count().max(1);
    let rest = width.saturating_sub(fixed) / wide;
    let cells = columns
        .iter()
        .zip(cells)
        .map(|((_, width, right), text)| cell(text, if *width == 0 { rest } else { *width }, *right));
    cells.collect::<Vec<_>>().join("  ")
}

fn draw_list(frame: &mut Frame<'_>, area: Rect, (app, data): (&App, &Data), list: List) {
    if area.height == 0 {
        return;
    }
    let order = app.order(list);
    let (columns, rows) = match list {
        List::Services => (SERVICES, app.services(data).into_iter().map(service).collect::<Vec<_>>()),
        List::Servers => (SERVERS, app.servers(data).into_iter().map(|row| server(row, data)).collect()),
        List::Flows => (flow_columns(order), app.flows(data).into_iter().map(|row| flow(row, order)).collect()),
        List::Drops => (DROPS, drops(app, data)),
    };
    let width = usize::from(area.width);
    let is_chosen = app.list == list;
    let mut headers: Vec<String> = columns.iter().map(|(header, ..)| (*header).to_owned()).collect();
    // The column by which the list is sorted has a mark.
    if let Some(sorted) = headers.iter_mut().find(|header| sorts(list, order) == header.as_str()) {
        sorted.push('▾');
    }
    if let (List::Flows, Some(words)) = (list, app.filter()) {
        headers[1] = format!("client ({words})");
    }
    let title = if is_chosen { headers[0].to_uppercase() } else { headers[0].clone() };
    headers[0] = format!("{} {title}", list as usize + 1);
    let head = line_of(columns, &headers, width);
    let style = if is_chosen { REVERSED.add_modifier(Modifier::BOLD) } else { REVERSED };
    let mut lines = vec![Line::styled(cell(&head, width, false), style)];
    let room = usize::from(area.height) - 1;
    let selected = app.selected(list);
    let from = (selected + 1).saturating_sub(room).min(rows.len().saturating_sub(room));
    if rows.is_empty() {
        lines.push(Line::styled("none", DIM));
    }
    for (place, cells) in rows.iter().enumerate().skip(from).take(room) {
        let style = if is_chosen && place == selected { BOLD.add_modifier(Modifier::UNDERLINED) } else { Style::new() };
        lines.push(Line::styled(line_of(columns, cells, width), style));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// Returns the header of the column that an order of a list sorts by.
fn sorts(list: List, order: &str) -> &str {
    match (list, order) {
        (List::Services, "name") => "services",
        (List::Servers, "name") => "servers",
        (List::Services, "rate") => "out",
        (List::Servers, "rate") => "in+out",
        (List::Drops, "rate") => "per second",
        (_, order) => order,
    }
}

const SERVICES: &[Column] = &[
    ("services", 0, false),
    ("pool", 12, false),
    ("flows", 9, true),
    ("new/s", 7, true),
    ("in", 12, true),
    ("out", 12, true),
];
const SERVERS: &[Column] = &[
    ("servers", 0, false),
    ("state", 16, false),
    ("weight", 6, true),
    ("flows", 9, true),
    ("in+out", 12, true),
    ("lately", PAST, false),
];
/// The columns of flows; those by which they are sorted are among them.
const fn flow_columns(order: &str) -> &'static [Column] {
    const ID: Column = ("flows", 8, false);
    const CLIENT: Column = ("client", 0, false);
    const SERVER: Column = ("server", 14, false);
    const RATE: Column = ("rate", 12, true);
    const USUAL: &[Column] = &[ID, CLIENT, SERVER, ("age", 6, true), ("bytes", 9, true), RATE];
    const PACKETS: &[Column] = &[ID, CLIENT, SERVER, ("age", 6, true), ("packets", 9, true), RATE];
    const IDLE: &[Column] = &[ID, CLIENT, SERVER, ("idle", 6, true), ("bytes", 9, true), RATE];
    match order.as_bytes() {
        b"packets" => PACKETS,
        b"idle" => IDLE,
        _ => USUAL,
    }
}
const DROPS: &[Column] = &[("drops", 16, false), ("packets", 13, true), ("per second", 10, true), ("", 0, false)];

fn service(row: &ServiceRow) -> Vec<String> {
    let name = if row.enabled { row.service.clone() } else { format!("{} (off)", row.service) };
    let of = |value: fn(&equipoise::control::Rates) -> String| row.rates.as_ref().map_or(String::new(), value);
    vec![
        name,
        row.pool.clone(),
        count(row.flows),
        of(|rates| count(rates.flows.round() as u64)),
        of(|rates| rate(rates.bytes_in)),
        of(|rates| rate(rates.bytes_out)),
    ]
}

fn server(row: &ServerRow, data: &Data) -> Vec<String> {
    let name = row.name();
    vec![
        name.clone(),
        server_state(row),
        row.weight.to_string(),
        count(row.flows),
        row.rates.map_or(String::new(), |rates| rate(rates.bytes_in + rates.bytes_out)),
        data.sparkline(&name),
    ]
}

fn flow(flow: &Busy, order: &str) -> Vec<String> {
    let row = &flow.row;
    let size = match order {
        "packets" => count(row.packets_in.saturating_add(row.packets_out)),
        _ => bytes(row.bytes_in.saturating_add(row.bytes_out)),
    };
    vec![
        row.id.to_string(),
        row.client.to_string(),
        row.server_name(),
        duration(if order == "idle" { row.idle_ms } else { row.age_ms }),
        size,
        flow.rate.map_or(String::new(), rate),
    ]
}

fn drops(app: &App, data: &Data) -> Vec<Vec<String>> {
    let mut rows: Vec<&Dropped> = data.drops.iter().collect();
    match app.order(List::Drops) {
        "rate" => rows.sort_by(|a, b| b.rate.unwrap_or(0.0).total_cmp(&a.rate.unwrap_or(0.0))),
        _ => rows.sort_by_key(|row| std::cmp::Reverse(row.count)),
    }
    let cells = |row: &&Dropped| {
        let per_second = row.rate.map_or(String::new(), |rate| count(rate.round() as u64));
        vec![row.name.into(), count(row.count), per_second, row.text.into()]
    };
    rows.iter().map(cells).collect()
}
