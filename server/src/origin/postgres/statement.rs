//! The SQL of the configuration, and what its statements take and return.
//!
//! The server says which types a prepared statement has. They are looked at once, so that nothing
//! that it returns later can surprise: a query that does not fit is refused with what to change.

use crate::config;
use crate::mesh::ContentType;
use bytes::BufMut as _;
use bytes::BytesMut;
use std::error::Error;
use tokio_postgres::Statement;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// What a text is called.
const TEXT: &str = "text/plain; charset=utf-8";

/// A statement as the configuration has it.
#[derive(Debug)]
pub(super) struct Text<S> {
    /// Which setting it is.
    pub(super) setting: &'static str,
    pub(super) sql: String,
    /// What it takes and returns, or why that does not fit.
    pub(super) read: fn(&Statement) -> Result<S, String>,
}

/// All statements.
#[derive(Debug)]
pub(super) struct Sql {
    pub(super) query: Text<Select>,
    /// The query, which locks the row for the rest of its transaction.
    pub(super) locked: Text<Select>,
    pub(super) put: Option<Text<Change>>,
    pub(super) delete: Option<Text<Change>>,
}

impl Sql {
    /// The statements of a configuration. They are not looked at yet.
    pub(super) fn of(config: &config::Postgres) -> Self {
        let setting = "postgres.query";
        let query = config.query.trim_end().trim_end_matches(';').to_owned();
        // In a line of its own, lest it become part of a comment.
        let locked = format!("{query}\nFOR UPDATE");
        let change = |setting, sql: &Option<String>, read| {
            sql.clone().map(|sql| Text { setting, sql, read })
        };
        let put: fn(&Statement) -> _ = |statement| Change::put(statement.params());
        let delete: fn(&Statement) -> _ = |statement| Change::delete(statement.params());
        Self {
            query: Text { setting, sql: query, read: select },
            locked: Text { setting, sql: locked, read: select },
            put: change("postgres.put", &config.put, put),
            delete: change("postgres.delete", &config.delete, delete),
        }
    }
}

fn select(statement: &Statement) -> Result<Select, String> {
    let columns = statement.columns().iter().map(|column| (column.name(), column.type_()));
    Select::of(statement.params(), columns)
}

/// How a statement takes the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Bytes,
    Text,
}

impl Key {
    fn of(params: &[Type]) -> Result<Self, String> {
        match params.first() {
            Some(&Type::BYTEA) => Ok(Self::Bytes),
            Some(&Type::TEXT | &Type::VARCHAR) => Ok(Self::Text),
            Some(other) => Err(format!(
                "$1, the key, is of type {other}, not bytea or text: write $1::text::{other}"
            )),
            None => Err("it has no $1 for the key".to_owned()),
        }
    }

    /// Whether a key can be one of these at all.
    pub(super) fn takes(self, key: &[u8]) -> bool {
        self == Self::Bytes || std::str::from_utf8(key).is_ok() && !key.contains(&0)
    }
}

/// What the query takes and returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Select {
    pub(super) key: Key,
    /// Which column is the value.
    pub(super) value: usize,
    /// What a value is whose row does not say so.
    pub(super) value_type: ContentType,
    pub(super) content_type: Option<usize>,
    pub(super) ttl_ms: Option<usize>,
}

impl Select {
    fn of<'a>(
        params: &[Type],
        columns: impl Iterator<Item = (&'a str, &'a Type)>,
    ) -> Result<Self, String> {
        let key = Key::of(params)?;
        if params.len() > 1 {
            return Err("it has a $2, but only the key is known".to_owned());
        }
        let (mut value, mut content_type, mut ttl_ms) = (None, None, None);
        for (index, (name, of_type)) in columns.enumerate() {
            match (name, of_type) {
                ("content_type", &Type::TEXT | &Type::VARCHAR) => content_type = Some(index),
                ("ttl_ms", &Type::INT8) => ttl_ms = Some(index),
                ("content_type", _) => {
                    return Err(format!("content_type is of type {of_type}, not text"));
                }
                ("ttl_ms", _) => return Err(format!("ttl_ms is of type {of_type}, not bigint")),
                _ if value.is_some() => {
                    return Err(format!(
                        "it returns {name} beside the value: only content_type and ttl_ms may be"
                    ));
                }
                _ => value = Some((index, value_type(name, of_type)?)),
            }
        }
        let (value, value_type) = value.ok_or("it returns no value")?;
        Ok(Self { key, value, value_type, content_type, ttl_ms })
    }
}

/// What a column of this type holds.
fn value_type(name: &str, of_type: &Type) -> Result<ContentType, String> {
    match *of_type {
        Type::BYTEA => Ok(ContentType::BYTES),
        Type::TEXT | Type::VARCHAR => Ok(ContentType::new(TEXT).expect("it is short and visible")),
        Type::JSON | Type::JSONB => Ok(ContentType::JSON),
        _ => Err(format!(
            "the value, {name}, is of type {of_type}, not bytea, text, json or jsonb: cast it"
        )),
    }
}

/// What a statement that changes a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: Key,
    /// It takes the content type too.
    pub(super) takes_type: bool,
}

impl Change {
    fn put(params: &[Type]) -> Result<Self, String> {
        let key = Key::of(params)?;
        match params.get(1) {
            Some(&Type::BYTEA | &Type::TEXT | &Type::VARCHAR | &Type::JSON) => {}
            // The tag that the writer is told would not be that of what is read.
            Some(&Type::JSONB) => {
                return Err(
                    "$2, the value, is of type jsonb, which writes it anew: use json".into()
                );
            }
            Some(other) => {
                return Err(format!("$2, the value, is of type {other}, not bytea, text or json"));
            }
            None => return Err("it has no $2 for the value".to_owned()),
        }
        let takes_type = match &params[2..] {
            [] => false,
            [Type::TEXT | Type::VARCHAR] => true,
            [other] => return Err(format!("$3, the content type, is of type {other}, not text")),
            _ => return Err("it has a $4, but only key, value and type are known".to_owned()),
        };
        Ok(Self { key, takes_type })
    }

    fn delete(params: &[Type]) -> Result<Self, String> {
        let key = Key::of(params)?;
        match params.len() {
            1 => Ok(Self { key, takes_type: false }),
            _ => Err("it has a $2, but only the key is known".to_owned()),
        }
    }
}

/// Bytes as they are, in any type whose values travel so. The server checks what has to be UTF-8
/// or JSON.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<'a>(pub(super) &'a [u8]);

impl ToSql for Raw<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_slice(self.0);
        Ok(IsNull::No)
    }

    fn accepts(of_type: &Type) -> bool {
        matches!(*of_type, Type::BYTEA | Type::TEXT | Type::VARCHAR | Type::JSON)
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(of_type: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        match (of_type, raw) {
            // The version of its format, then text.
            (&Type::JSONB, [1, text @ ..]) => Ok(Self(text)),
            (&Type::JSONB, _) => Err("a jsonb of an unknown version".into()),
            _ => Ok(Self(raw)),
        }
    }

    fn accepts(of_type: &Type) -> bool {
        <Self as ToSql>::accepts(of_type) || *of_type == Type::JSONB
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice::from_ref;

    fn select(params: &[Type], columns: &[(&str, Type)]) -> Result<Select, String> {
        Select::of(params, columns.iter().map(|(name, of_type)| (*name, of_type)))
    }

    #[test]
    fn columns_are_known_by_their_names_and_the_value_is_the_other_one() {
        let columns =
            [("ttl_ms", Type::INT8), ("body", Type::JSONB), ("content_type", Type::VARCHAR)];
        let expected = Select {
            key: Key::Bytes,
            value: 1,
            value_type: ContentType::JSON,
            content_type: Some(2),
            ttl_ms: Some(0),
        };
        assert_eq!(select(&[Type::BYTEA], &columns), Ok(expected));
        for (of_type, name) in [
            (Type::BYTEA, "application/octet-stream"),
            (Type::TEXT, "text/plain; charset=utf-8"),
            (Type::JSON, "application/json"),
        ] {
            let select = select(&[Type::TEXT], &[("value", of_type)]).expect(name);
            assert_eq!((select.key, select.value_type.as_str()), (Key::Text, name));
        }
    }

    #[test]
    fn a_query_that_does_not_fit_is_refused_with_what_to_change() {
        let value = ("value", Type::TEXT);
        for (params, columns, what) in [
            (&[][..], from_ref(&value), "no $1"),
            (&[Type::INT8], from_ref(&value), "$1::text::int8"),
            (&[Type::TEXT, Type::TEXT], from_ref(&value), "has a $2"),
            (&[Type::TEXT], &[], "no value"),
            (&[Type::TEXT], &[("n", Type::INT4)], "the value, n, is of type int4"),
            (&[Type::TEXT], &[value.clone(), ("etag", Type::TEXT)], "returns etag beside"),
            (&[Type::TEXT], &[value.clone(), ("ttl_ms", Type::INT4)], "not bigint"),
            (&[Type::TEXT], &[value.clone(), ("content_type", Type::BYTEA)], "not text"),
        ] {
            let refused = select(params, columns).expect_err(what);
            assert!(refused.contains(what), "{refused}");
        }
    }

    #[test]
    fn a_write_takes_key_and_value_and_perhaps_the_type() {
        let (key, value) = (Type::TEXT, Type::JSON);
        let put = |params: &[Type]| Change::put(params);
        let plain = Change { key: Key::Text, takes_type: false };
        assert_eq!(put(&[key.clone(), value.clone()]), Ok(plain));
        let typed = put(&[key.clone(), value.clone(), Type::TEXT]);
        assert_eq!(typed, Ok(Change { takes_type: true, ..plain }));
        for (params, what) in [
            (&[Type::TEXT][..], "no $2"),
            (&[Type::TEXT, Type::JSONB], "use json"),
            (&[Type::TEXT, Type::INT4], "int4"),
            (&[Type::TEXT, Type::TEXT, Type::INT4], "$3"),
            (&[Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT], "$4"),
        ] {
            assert!(put(params).expect_err(what).contains(what), "{what}");
        }
        assert_eq!(Change::delete(&[Type::BYTEA]), Ok(Change { key: Key::Bytes, ..plain }));
        assert!(Change::delete(&[]).is_err() && Change::delete(&[key, value]).is_err());
    }

    #[test]
    fn a_key_that_is_no_text_can_be_in_no_text_column() {
        assert!(Key::Text.takes("\u{e9}".as_bytes()) && Key::Bytes.takes(b"\xff\0"));
        assert!(!Key::Text.takes(b"\xff") && !Key::Text.takes(b"a\0b"));
    }

    #[test]
    fn the_format_of_jsonb_is_taken_off() {
        let read = |of_type: &Type, bytes| Raw::from_sql(of_type, bytes).map(|raw| raw.0).ok();
        assert_eq!(read(&Type::JSONB, b"\x01{}"), Some(&b"{}"[..]));
        assert_eq!(read(&Type::JSONB, b"\x02{}"), None);
        assert_eq!(read(&Type::JSONB, b""), None);
        assert_eq!(read(&Type::BYTEA, b"\x01{}"), Some(&b"\x01{}"[..]));
    }

    #[test]
    fn a_lock_is_not_lost_in_a_comment() {
        let text = "query = \"SELECT value FROM items WHERE key = $1 -- all ; \"";
        let config = config::Config::parse("it", &format!("[postgres]\n{text}"), &[]);
        let sql = Sql::of(&config.expect("a configuration").postgres);
        assert!(sql.locked.sql.ends_with("-- all \nFOR UPDATE"), "{}", sql.locked.sql);
        assert!(sql.put.is_none() && sql.delete.is_none());
    }
}
