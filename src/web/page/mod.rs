//! The page: a few files in the program, and nothing from elsewhere.

/// A file of the page.
#[derive(Debug, PartialEq, Eq)]
pub struct Asset {
    /// Its path.
    pub path: &'static str,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its bytes.
    pub bytes: &'static [u8],
}

const fn asset(path: &'static str, content_type: &'static str, text: &'static str) -> Asset {
    Asset { path, content_type, bytes: text.as_bytes() }
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The files.
static ASSETS: [Asset; 7] = [
    asset("/", "text/html; charset=utf-8", include_str!("index.html")),
    asset("/page.css", "text/css; charset=utf-8", include_str!("page.css")),
    asset("/icon.svg", "image/svg+xml", include_str!("icon.svg")),
    asset("/page.js", SCRIPT, include_str!("page.js")),
    asset("/data.js", SCRIPT, include_str!("data.js")),
    asset("/draw.js", SCRIPT, include_str!("draw.js")),
    asset("/explain.js", SCRIPT, include_str!("explain.js")),
];

impl Asset {
    /// Returns the file at a path.
    pub fn at(path: &str) -> Option<&'static Asset> {
        ASSETS.iter().find(|asset| asset.path == path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str) -> &'static str {
        std::str::from_utf8(Asset::at(path).expect(path).bytes).expect("text")
    }

    /// The values of an attribute, or what follows a word.
    fn quoted(text: &'static str, before: &str) -> Vec<&'static str> {
        text.split(before).skip(1).filter_map(|rest| rest.split('"').next()).collect()
    }

    #[test]
    fn the_page_asks_for_nothing_from_elsewhere_and_for_nothing_that_is_not_there() {
        let mut asked = Vec::new();
        for asset in &ASSETS {
            let text = text(asset.path);
            assert!(!text.contains("https://") && !text.contains("//cdn"), "{}", asset.path);
            let names = text.matches("http://").count() - text.matches("http://www.w3.org/2000/svg").count();
            assert_eq!(names, 0, "{}", asset.path);
            asked.extend(quoted(text, "src=\"").into_iter().chain(quoted(text, "href=\"/")));
            asked.extend(quoted(text, "from \"./"));
        }
        let routes = ["metrics", "readyz"];
        for path in asked.into_iter().filter(|path| !path.is_empty() && !routes.contains(path)) {
            let path = format!("/{}", path.trim_start_matches('/'));
            assert!(Asset::at(&path).is_some(), "{path}");
        }
    }

    #[test]
    fn the_page_keeps_to_its_content_security_policy() {
        let html = text("/");
        for bad in ["style=\"", "<style", "onclick=", "onload=", "javascript:"] {
            assert!(!html.contains(bad), "{bad}");
        }
        assert_eq!(html.matches("<script").count(), html.matches("<script type=\"module\" src=\"").count());
        for path in ["/page.js", "/draw.js", "/data.js", "/explain.js"] {
            for bad in ["innerHTML", "insertAdjacentHTML", "eval(", "new Function", "document.write"] {
                assert!(!text(path).contains(bad), "{bad} in {path}");
            }
        }
    }
}
