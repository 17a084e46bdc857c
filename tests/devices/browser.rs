//! A headless Chromium, driven through its DevTools protocol over a pair of pipes.

use crate::world::{PATIENCE, Running, World, program, run};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

pub struct Browser {
    to: File,
    from: BufReader<File>,
    session: String,
    last: u64,
    /// What went wrong in the page: exceptions, errors in the console, what its policy forbids.
    pub complaints: Vec<String>,
    _running: Running,
}

impl Browser {
    /// Starts it on the gateway of a world.
    pub fn start(world: &World) -> Browser {
        let dir = world.dir.path();
        let pipes = [dir.join("to-browser"), dir.join("from-browser")];
        assert!(run(Command::new("mkfifo").args(&pipes)).status.success(), "mkfifo");
        let mut command = world.gateway.command("/bin/sh");
        let script = "exec \"$1\" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --hide-scrollbars \
                      --disable-background-networking --disable-component-update --remote-debugging-pipe \
                      --user-data-dir=\"$2\" about:blank 3<\"$3\" 4>\"$4\"";
        command.args(["-c", script, "sh"]).arg(program("chromium")).arg(dir.join("browser")).args(&pipes);
        command.env("HOME", dir).stdout(Stdio::null());
        let log = File::create(dir.join("browser.log")).unwrap();
        let running = Running::start(command.stderr(log));
        let to = File::options().write(true).open(&pipes[0]).unwrap();
        let from = BufReader::new(File::open(&pipes[1]).unwrap());
        let session = String::new();
        let mut browser = Browser { to, from, session, last: 0, complaints: Vec::new(), _running: running };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached =
            browser.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Accessibility"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls a method of the protocol and returns its result.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut bytes = Vec::new();
            assert!(self.from.read_until(0, &mut bytes).unwrap() > 1, "the browser has ended: see browser.log");
            bytes.pop();
            let message: Value = serde_json::from_slice(&bytes).unwrap();
            if message["id"] == self.last {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Value) {
        let params = &message["params"];
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.complaints.push(params["exceptionDetails"].to_string()),
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                self.complaints.push(params["entry"].to_string());
            }
            Some("Runtime.consoleAPICalled") if params["type"] == "error" => self.complaints.push(params.to_string()),
            _ => {}
        }
    }

    /// Evaluates an expression in the page.
    pub fn eval(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn until(&mut self, what: &str, expression: &str) {
        let begun = Instant::now();
        while self.eval(expression) != true {
            let complaints = &self.complaints;
            assert!(begun.elapsed() < PATIENCE, "waited for {what}: {complaints:?}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    /// Opens a page and waits until it is loaded.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
        self.until("the page to load", "document.readyState === 'complete'");
    }

    /// Makes the window so wide, in one of the two colour schemes.
    pub fn resize(&mut self, width: u32, dark: bool) {
        let (height, mobile) = if width < 700 { (844, true) } else { (900, false) };
        let params = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.call("Emulation.setDeviceMetricsOverride", params);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Clicks in the middle of an element with the mouse.
    pub fn click(&mut self, selector: &str) {
        let at = self.eval(&format!(
            "(() => {{ const e = document.querySelector({selector:?}); e.scrollIntoView({{ block: 'center' }}); \
             const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let params = json!({ "type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", params);
        }
    }

    /// Types text where the focus is.
    pub fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Presses a key.
    pub fn press(&mut self, key: &str) {
        let text = match key {
            "Enter" => Some("\r"),
            one if one.len() == 1 => Some(one),
            _ => None,
        };
        let code = match key {
            "Enter" => 13,
            "Tab" => 9,
            "Escape" => 27,
            _ => 0,
        };
        let mut down = json!({ "type": "keyDown", "key": key, "windowsVirtualKeyCode": code });
        if let Some(text) = text {
            down["text"] = text.into();
        }
        self.call("Input.dispatchKeyEvent", down);
        self.call("Input.dispatchKeyEvent", json!({ "type": "keyUp", "key": key, "windowsVirtualKeyCode": code }));
    }

    /// Takes pictures of the whole page, one below the other: `NAME-1.png`, ...
    pub fn pictures(&mut self, name: &Path) {
        let size = self.call("Page.getLayoutMetrics", json!({}))["cssContentSize"].clone();
        let (width, height) = (size["width"].as_u64().unwrap(), size["height"].as_u64().unwrap());
        for (part, y) in (0..height).step_by(1500).enumerate() {
            let clip = json!({ "x": 0, "y": y, "width": width, "height": (height - y).min(1500), "scale": 1 });
            let params = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
            let result = self.call("Page.captureScreenshot", params);
            let bytes = decode(result["data"].as_str().unwrap());
            assert!(bytes.starts_with(b"\x89PNG"), "{} bytes", bytes.len());
            std::fs::write(format!("{}-{}.png", name.display(), part + 1), bytes).unwrap();
        }
    }

    /// Returns what a screen reader has of the page: each node's role and name.
    pub fn spoken(&mut self) -> Vec<(String, String)> {
        let tree = self.call("Accessibility.getFullAXTree", json!({}));
        let nodes = tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] != true);
        let text = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
        nodes.map(|node| (text(&node["role"]), text(&node["name"]))).collect()
    }
}

/// Decodes base64 (RFC 4648, section 4).
fn decode(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = four.iter().fold(0, |bits: u32, c| bits << 6 | u32::from(digit(*c))) << (6 * (4 - four.len()));
        bytes.extend(&bits.to_be_bytes()[1..four.len()]);
    }
    bytes
}
