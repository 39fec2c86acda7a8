//! Every error that is answered: its status line, what it is called in the body, and when it is
//! due.
//!
//! A refusal says nothing about the connection: one that arrives as `Step::Refused` ends it, one
//! that is the route of a request leaves it as the request says.

/// Declares [`Refusal`]: variant, status line, name in the body, further fields, and its meaning.
macro_rules! refusals {
    ($($variant:ident, $status:literal, $error:literal, $fields:literal, $sentence:literal;)+) => {
        /// A request that is answered with an error.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Refusal { $(#[doc = $sentence] $variant,)+ }

        impl Refusal {
            /// Every refusal.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Status code and reason phrase: `404 Not Found`.
            #[must_use]
            pub const fn status(self) -> &'static str {
                match self { $(Self::$variant => $status,)+ }
            }

            /// The reply's body.
            #[must_use]
            pub const fn body(self) -> &'static str {
                match self { $(Self::$variant => concat!(r#"{"error":""#, $error, r#""}"#),)+ }
            }

            /// Header lines that only this refusal has, each with its CRLF.
            #[must_use]
            pub(crate) const fn fields(self) -> &'static str {
                match self { $(Self::$variant => $fields,)+ }
            }
        }
    };
}

refusals! {
    BadRequestLine, "400 Bad Request", "bad_request_line", "",
        "The request line does not have the form of RFC 9112 section 3.";
    BadTarget, "400 Bad Request", "bad_target", "",
        "The target has none of the forms of RFC 9112 section 3.2.";
    BadEscape, "400 Bad Request", "bad_percent_escape", "",
        "A percent sign of the key is not followed by two hex digits (RFC 3986 section 2.1).";
    BadFieldName, "400 Bad Request", "bad_field_name", "",
        "A header line does not begin with a token and a colon (RFC 9112 section 5.1), or is \
         folded (5.2).";
    BadFieldValue, "400 Bad Request", "bad_field_value", "",
        "A header value holds a control character or does not end with CRLF (RFC 9110 section \
         5.5).";
    BadHost, "400 Bad Request", "bad_host", "",
        "Host is missing, repeated or malformed (RFC 9112 section 3.2).";
    BadContentLength, "400 Bad Request", "bad_content_length", "",
        "Content-Length is repeated or is not a number of at most 19 digits (RFC 9112 section \
         6.3).";
    BadTransferEncoding, "400 Bad Request", "bad_transfer_encoding", "",
        "Transfer-Encoding is repeated, beside Content-Length, in HTTP/1.0, or does not end with \
         chunked (RFC 9112 sections 6.1 and 6.3).";
    BadChunk, "400 Bad Request", "bad_chunk", "",
        "The chunked body breaks its framing or its extensions are too long (RFC 9112 section \
         7.1).";
    BodyNotAllowed, "400 Bad Request", "body_not_allowed", "",
        "GET, HEAD and DELETE with a body are a way to smuggle a request (RFC 9110 section 9.3.1).";
    BadPrecondition, "400 Bad Request", "bad_precondition", "",
        "If-Match or If-None-Match of a write is malformed or has more than four of our tags.";
    BadCacheControl, "400 Bad Request", "bad_cache_control", "",
        "A lifetime in Cache-Control of a write is repeated or no number.";
    ContentRangeNotAllowed, "400 Bad Request", "content_range_not_allowed", "",
        "A part of a value cannot be written (RFC 9110 section 14.5).";
    Unauthorized, "401 Unauthorized", "unauthorized", "WWW-Authenticate: Bearer\r\n",
        "A request shows no key of a tenant where there are tenants, or a write does not bear the \
         token of `admin.token_file` either (RFC 6750).";
    BadBatch, "400 Bad Request", "bad_batch", "",
        "The body of a batch is not an object with the one member `keys`, an array of keys.";
    Forbidden, "403 Forbidden", "forbidden", "",
        "The tenant may not do this, or not with this key.";
    NotFound, "404 Not Found", "not_found", "",
        "There is nothing at this path.";
    MethodNotAllowed, "405 Method Not Allowed", "method_not_allowed", "Allow: GET, HEAD\r\n",
        "The path exists but is not served by this method (RFC 9110 section 15.5.6).";
    MethodNotAllowedOfKey, "405 Method Not Allowed", "method_not_allowed",
        "Allow: GET, HEAD, PUT, DELETE\r\n",
        "A key is not served by this method where it may be written.";
    MethodNotAllowedOfBatch, "405 Method Not Allowed", "method_not_allowed", "Allow: POST\r\n",
        "A batch is not served by this method.";
    RequestTimeout, "408 Request Timeout", "request_timeout", "",
        "The request was not complete in time.";
    PreconditionFailed, "412 Precondition Failed", "precondition_failed", "",
        "If-Match or If-None-Match says that the write must not be done (RFC 9110 section 13.1).";
    ContentTooLarge, "413 Content Too Large", "content_too_large", "",
        "The body exceeds `http.body_size_max`, or the value `cache.value_size_max`.";
    TooManyKeys, "413 Content Too Large", "too_many_keys", "",
        "A batch has more than `http.batch_keys_max` keys.";
    BatchTooLarge, "413 Content Too Large", "batch_too_large", "",
        "The value of an item exceeds what is left of `http.batch_bytes_max`.";
    TargetTooLong, "414 URI Too Long", "target_too_long", "",
        "The target exceeds `http.target_size_max`, or has no end within `http.head_size_max`.";
    KeyTooLong, "414 URI Too Long", "key_too_long", "",
        "The decoded key exceeds `http.key_size_max`.";
    ContentTypeUnsupported, "415 Unsupported Media Type", "unsupported_content_type", "",
        "Content-Type is repeated, empty, longer than 63 bytes or not of visible ASCII.";
    ContentEncodingUnsupported, "415 Unsupported Media Type", "unsupported_content_encoding",
        "Accept-Encoding: identity\r\n",
        "Values are stored as they are sent and served to everybody: none may be encoded.";
    ExpectationFailed, "417 Expectation Failed", "expectation_failed", "",
        "Expect asks for something else than 100-continue (RFC 9110 section 10.1.1).";
    RateLimited, "429 Too Many Requests", "rate_limited", "Retry-After: 1\r\n",
        "The tenant has used up its rate. It has one request again within a second (RFC 6585 \
         section 4).";
    HeadTooLarge, "431 Request Header Fields Too Large", "head_too_large", "",
        "The head exceeds `http.head_size_max`, or the trailers of the body their bound.";
    TooManyFields, "431 Request Header Fields Too Large", "too_many_header_fields", "",
        "The head has more than `http.headers_count_max` lines.";
    MethodUnknown, "501 Not Implemented", "unknown_method", "",
        "The method is none that we know, or CONNECT (RFC 9110 section 9.1).";
    CodingUnknown, "501 Not Implemented", "unknown_transfer_coding", "",
        "Transfer-Encoding names other codings before chunked (RFC 9112 section 6.1).";
    OriginUnavailable, "502 Bad Gateway", "origin_unavailable", "",
        "The origin failed and nothing stale may be served.";
    Overloaded, "503 Service Unavailable", "overloaded_try_again", "Retry-After: 1\r\n",
        "A bound of the shard was reached.";
    TooManyConnections, "503 Service Unavailable", "too_many_connections", "Retry-After: 1\r\n",
        "The tenant holds its share of the shard's connections.";
    OriginTimeout, "504 Gateway Timeout", "origin_unavailable", "",
        "The origin did not answer in time and nothing stale may be served.";
    VersionUnknown, "505 HTTP Version Not Supported", "unknown_http_version", "",
        "The version is neither HTTP/1.1 nor HTTP/1.0.";
}
