//! The API written down: `/openapi.json`, and a page to browse it that needs nothing else.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Response, StatusCode};

/// Where the document is.
const DOCUMENT: &str = "/openapi.json";
/// Where the page is.
const PAGE: &str = "/docs";

const HTML: &[u8] = include_bytes!("browse.html");

/// The answer to a request for one of these paths; `None` for another.
pub(crate) fn answer(method: &Method, path: &str, document: &Bytes) -> Option<Response<Full<Bytes>>> {
    let (body, content_type) = match path {
        DOCUMENT => (document.clone(), "application/json"),
        PAGE => (Bytes::from_static(HTML), "text/html; charset=utf-8"),
        _ => return None,
    };
    let is_read = method == Method::GET || method == Method::HEAD;
    let mut response = Response::new(if is_read { Full::from(body) } else { Full::default() });
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    if is_read {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    } else {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET,HEAD"));
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_and_its_page_can_be_read_and_nothing_else() {
        let document = answer(&Method::GET, DOCUMENT, &Bytes::new()).expect("it is there");
        assert_eq!(
            (document.status(), &document.headers()[header::CONTENT_TYPE]),
            (StatusCode::OK, &HeaderValue::from_static("application/json"))
        );
        assert_eq!(answer(&Method::HEAD, PAGE, &Bytes::new()).expect("it is there").status(), StatusCode::OK);
        assert_eq!(
            answer(&Method::POST, PAGE, &Bytes::new()).expect("it is there").status(),
            StatusCode::METHOD_NOT_ALLOWED
        );
        assert!(answer(&Method::GET, "/docs/", &Bytes::new()).is_none());
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = std::str::from_utf8(HTML).expect("it is text");
        assert!(!page.contains("://") && page.contains(DOCUMENT));
    }
}
