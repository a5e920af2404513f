//! An expression, parsed.

/// A part of an expression and how deep it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) height: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Literal(Literal),
    Column(Column),
    /// An operator before its operand: `-`, `+`, `~`, `NOT`.
    Prefix(&'static str, Box<Node>),
    /// An operator after its operand: `ISNULL`, `NOTNULL`.
    Postfix(Box<Node>, &'static str),
    /// Arithmetic and the like.
    Binary(Box<Node>, &'static str, Box<Node>),
    /// A comparison, whose literals are bound.
    Compare(Box<Node>, &'static str, Box<Node>),
    /// `LIKE` and `GLOB`, with an `ESCAPE` perhaps.
    Match {
        left: Box<Node>,
        op: &'static str,
        right: Box<Node>,
        escape: Option<Box<Node>>,
    },
    Between {
        value: Box<Node>,
        op: &'static str,
        low: Box<Node>,
        high: Box<Node>,
    },
    In {
        value: Box<Node>,
        op: &'static str,
        list: Vec<Node>,
    },
    /// Terms joined under `AND` or `OR`.
    Join(&'static str, Vec<Node>),
    Call {
        function: &'static str,
        arguments: Vec<Node>,
    },
    Cast(Box<Node>, &'static str),
    Collate(Box<Node>, &'static str),
    Case {
        subject: Option<Box<Node>>,
        arms: Vec<(Node, Node)>,
        otherwise: Option<Box<Node>>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    /// `NULL`, `TRUE`, `FALSE` or `CURRENT_…`.
    Word(&'static str),
    Integer(i64),
    Float(f64),
    Text(String),
    Blob(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Id,
    Payload,
    Events,
    State,
    Modified,
}

impl Column {
    pub(super) fn named(name: &str) -> Option<Self> {
        let columns = [
            ("id", Column::Id),
            ("rowid", Column::Id),
            ("_rowid_", Column::Id),
            ("oid", Column::Id),
            ("payload", Column::Payload),
            ("events", Column::Events),
            ("state", Column::State),
            ("modified", Column::Modified),
        ];
        columns.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, it)| *it)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Column::Id => "id",
            Column::Payload => "payload",
            Column::Events => "events",
            Column::State => "state",
            Column::Modified => "modified",
        }
    }

    /// The column holds JSON.
    pub(super) fn is_json(self) -> bool {
        match self {
            Column::Payload | Column::Events | Column::State => true,
            Column::Id | Column::Modified => false,
        }
    }
}

/// What an expression may call, with the least and the greatest number of arguments. None of them
/// reads a file, takes memory at will, or has an effect.
const FUNCTIONS: [(&str, usize, usize); 51] = [
    ("abs", 1, 1),
    ("char", 0, 100),
    ("coalesce", 2, 100),
    ("concat", 1, 100),
    ("concat_ws", 2, 100),
    ("date", 0, 100),
    ("datetime", 0, 100),
    ("glob", 2, 2),
    ("hex", 1, 1),
    ("ifnull", 2, 2),
    ("iif", 2, 100),
    ("instr", 2, 2),
    ("json", 1, 1),
    ("json_array", 0, 100),
    ("json_array_length", 1, 2),
    ("json_extract", 2, 100),
    ("json_insert", 1, 101),
    ("json_object", 0, 100),
    ("json_patch", 2, 2),
    ("json_quote", 1, 1),
    ("json_remove", 1, 100),
    ("json_replace", 1, 101),
    ("json_set", 1, 101),
    ("json_type", 1, 2),
    ("json_valid", 1, 2),
    ("julianday", 0, 100),
    ("length", 1, 1),
    ("like", 2, 3),
    ("likelihood", 2, 2),
    ("likely", 1, 1),
    ("lower", 1, 1),
    ("ltrim", 1, 2),
    // Of one argument they are aggregates.
    ("max", 2, 100),
    ("min", 2, 100),
    ("nullif", 2, 2),
    ("octet_length", 1, 1),
    ("quote", 1, 1),
    ("replace", 3, 3),
    ("round", 1, 2),
    ("rtrim", 1, 2),
    ("sign", 1, 1),
    ("strftime", 1, 100),
    ("substr", 2, 3),
    ("substring", 2, 3),
    ("time", 0, 100),
    ("trim", 1, 2),
    ("typeof", 1, 1),
    ("unicode", 1, 1),
    ("unixepoch", 0, 100),
    ("unlikely", 1, 1),
    ("upper", 1, 1),
];

/// The function of this name, if it takes so many arguments.
pub(super) fn function(name: &str, arguments: usize) -> Option<&'static str> {
    let found = FUNCTIONS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name));
    let (name, least, most) = found?;
    (*least..=*most).contains(&arguments).then_some(*name)
}

/// An expression may call this function; `->` and `->>` are functions too.
pub(crate) fn is_known_function(name: &str) -> bool {
    matches!(name, "->" | "->>") || FUNCTIONS.iter().any(|(known, ..)| known.eq_ignore_ascii_case(name))
}
