//! Parameters: the values that turn one template into many jobs.

use std::fmt::Write as _;
use std::path::Path;
use std::rc::Rc;

use crate::diagnostic::{Kind, Report};
use crate::node::{Node, Text, Value};
use crate::tables::Table;

/// The most values of one parameter, and the most combinations of one template.
pub(crate) const COMBINATIONS_MAX: usize = 2_000_000;

/// One value of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ParameterValue {
    Int(i64),
    Float(f64),
    Text(String),
}

impl ParameterValue {
    /// What an unquoted word means: a whole number, else a number, else a text.
    pub(crate) fn infer(word: &str) -> Self {
        if let Ok(number) = word.parse() {
            return Self::Int(number);
        }
        match word.parse() {
            Ok(number) => Self::Float(number),
            Err(_) => Self::Text(word.to_owned()),
        }
    }

    pub(crate) fn from_json(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(number), _) => Self::Int(number),
                (None, Some(number)) => Self::Float(number),
                (None, None) => Self::Text(number.to_string()),
            },
            serde_json::Value::String(text) => Self::Text(text),
            other => Self::Text(other.to_string()),
        }
    }

    /// Writes the value: `03d` pads whole numbers with zeros, `.2f` rounds floats; any other
    /// format leaves the value as it is.
    fn write(&self, format: Option<Format>, to: &mut String) {
        let written = match (self, format) {
            (Self::Int(number), Some(Format::Padded(width))) => write!(to, "{number:0width$}"),
            (Self::Float(number), Some(Format::Rounded(digits))) => write!(to, "{number:.digits$}"),
            (Self::Int(number), _) => write!(to, "{number}"),
            (Self::Float(number), _) => write!(to, "{number}"),
            (Self::Text(text), _) => write!(to, "{text}"),
        };
        written.expect("a String takes everything");
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Format {
    Padded(usize),
    Rounded(usize),
}

impl Format {
    fn parse(text: &str) -> Option<Self> {
        // Wider than anything sensible, and within what the formatting machinery takes.
        let number = |text: &str| text.parse::<u16>().ok().filter(|n| *n <= 1000).map(usize::from);
        if let Some(width) = text.strip_suffix('d').and_then(|text| text.strip_prefix('0')) {
            return number(width).map(Self::Padded);
        }
        text.strip_suffix('f').and_then(|text| text.strip_prefix('.')).and_then(number).map(Self::Rounded)
    }
}

/// A parameter and its values.
#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    pub(crate) name: Text,
    pub(crate) values: Rc<[ParameterValue]>,
    /// As written, for texts that take the parameter as a whole.
    written: String,
}

impl Parameter {
    /// Reads one entry of a `parameters` map; a mistake is reported.
    pub(crate) fn read(name: &Text, node: &Node, directory: &Path, report: &Report<'_>) -> Option<Self> {
        let values = match &node.value {
            Value::Text(text) => parse(text, directory),
            Value::Int(number) => Ok(vec![ParameterValue::Int(*number)]),
            Value::Float(number) => Ok(vec![ParameterValue::Float(*number)]),
            Value::List(items) => items.iter().map(list_item).collect(),
            _ => Err(BadParameter::new(format!("values have to be a range or a list, found {}", node.kind()))),
        };
        let written = match &node.value {
            Value::Text(text) => text.clone(),
            _ => node.to_json().to_string(),
        };
        match values {
            Ok(values) => Some(Self { name: name.clone(), values: values.into(), written }),
            Err(bad) => {
                let message = format!("parameter `{}`: {}", name.value, bad.message);
                report.error_with(Kind::BadParameter, node.at, message, || bad.help);
                None
            }
        }
    }

    /// The value that workflow-level texts see: the only one, else what was written.
    pub(crate) fn whole(&self) -> ParameterValue {
        match &self.values[..] {
            [only] => only.clone(),
            _ => ParameterValue::Text(self.written.clone()),
        }
    }
}

struct BadParameter {
    message: String,
    help: Option<String>,
}

impl BadParameter {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

fn list_item(node: &Node) -> Result<ParameterValue, BadParameter> {
    match &node.value {
        Value::Int(number) => Ok(ParameterValue::Int(*number)),
        Value::Float(number) => Ok(ParameterValue::Float(*number)),
        Value::Text(text) => Ok(ParameterValue::Text(text.clone())),
        Value::Bool(flag) => Ok(ParameterValue::Text(flag.to_string())),
        Value::Null => Ok(ParameterValue::Text("null".to_owned())),
        Value::List(_) | Value::Map(_) => {
            Err(BadParameter::new(format!("a value has to be a number or a text, found {}", node.kind())))
        }
    }
}

/// Reads `1:100`, `0:100:10`, `0.0:1.0:0.1`, `[a, b]`, `@file`, or a single value.
fn parse(text: &str, directory: &Path) -> Result<Vec<ParameterValue>, BadParameter> {
    let text = text.trim();
    if let Some(path) = text.strip_prefix('@') {
        return list_file(path.trim(), directory);
    }
    // `{1:100}` for `1:100` is a common slip.
    let braced = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let text = braced.filter(|inner| !inner.contains(',')).map_or(text, str::trim);
    if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        let inner = inner.trim();
        return Ok(if inner.is_empty() {
            Vec::new()
        } else {
            inner.split(',').map(|item| unquoted(item.trim())).collect()
        });
    }
    if text.contains(':') {
        return range(text);
    }
    Ok(vec![ParameterValue::infer(text)])
}

fn unquoted(item: &str) -> ParameterValue {
    match ParameterValue::infer(item) {
        ParameterValue::Text(text) => ParameterValue::Text(text.trim_matches('\'').trim_matches('"').to_owned()),
        number => number,
    }
}

fn list_file(path: &str, directory: &Path) -> Result<Vec<ParameterValue>, BadParameter> {
    if path.is_empty() {
        return Err(BadParameter::new("`@` has to be followed by a file's path"));
    }
    let content = std::fs::read_to_string(directory.join(path))
        .map_err(|error| BadParameter::new(format!("cannot read `{path}`: {error}")))?;
    let lines = content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(ParameterValue::infer).collect())
}

fn range(text: &str) -> Result<Vec<ParameterValue>, BadParameter> {
    let parts: Vec<&str> = text.split(':').map(str::trim).collect();
    let (start, end, step) = match parts[..] {
        [start, end] => (start, end, None),
        [start, end, step] => (start, end, Some(step).filter(|step| !step.is_empty())),
        _ => return Err(not_a_range(text)),
    };
    let values = if let (Ok(start), Ok(end)) = (start.parse(), end.parse()) {
        let step = step.map_or(Ok(1), |step| {
            let bad = BadParameter::new(format!("the step of `{text}` is not a whole number"));
            step.parse().map_err(|_| bad.help("a range of floats begins and ends with floats: 0.0:1.0:0.1"))
        });
        int_range(start, end, step?, text)
    } else if let (Ok(start), Ok(end)) = (start.parse(), end.parse()) {
        let bad = || BadParameter::new(format!("the step of `{text}` is not a number"));
        let step = step.map_or(Ok(1.0), |step| step.parse().map_err(|_| bad()));
        float_range(start, end, step?, text)
    } else {
        Err(not_a_range(text))
    }?;
    if values.is_empty() {
        let bad = BadParameter::new(format!("the range `{text}` is empty"));
        return Err(bad.help(
            "the first number is the start, the second the end, both included; to count down give a negative step",
        ));
    }
    Ok(values)
}

fn not_a_range(text: &str) -> BadParameter {
    BadParameter::new(format!("`{text}` is not a range such as 1:10 or 0.0:1.0:0.1"))
        .help(format!("a text with a colon goes into a list: [\"{text}\"]"))
}

fn int_range(start: i64, end: i64, step: i64, text: &str) -> Result<Vec<ParameterValue>, BadParameter> {
    if step == 0 {
        return Err(BadParameter::new(format!("the step of `{text}` is 0")));
    }
    let span = (i128::from(end) - i128::from(start)) * i128::from(step.signum());
    let count = if span < 0 { 0 } else { span / i128::from(step).abs() + 1 };
    if count > COMBINATIONS_MAX as i128 {
        return Err(BadParameter::new(format!("`{text}` has {count} values; at most {COMBINATIONS_MAX} are taken")));
    }
    let count = i64::try_from(count).expect("at most COMBINATIONS_MAX");
    Ok((0..count).map(|index| ParameterValue::Int(start + index * step)).collect())
}

fn float_range(start: f64, end: f64, step: f64, text: &str) -> Result<Vec<ParameterValue>, BadParameter> {
    /// How far rounding may carry the last value past the end.
    const SLACK: f64 = 1e-10;
    if step == 0.0 || !step.is_finite() || !start.is_finite() || !end.is_finite() {
        return Err(BadParameter::new(format!("`{text}` never ends")));
    }
    if (end - start) / step > COMBINATIONS_MAX as f64 {
        return Err(BadParameter::new(format!("`{text}` has more than {COMBINATIONS_MAX} values")));
    }
    let mut values = Vec::new();
    let mut current = start;
    // Added up rather than multiplied: the values, and so the names, are torc's to the last bit.
    while if step > 0.0 { current <= end + SLACK } else { current >= end - SLACK } {
        values.push(ParameterValue::Float(current));
        current += step;
    }
    Ok(values)
}

/// The combinations that one template is expanded over.
pub(crate) enum Combinations {
    /// Every value with every value; the last parameter changes fastest.
    Product(Vec<Parameter>),
    /// The first values together, the second ones together, and so on.
    Zip(Vec<Parameter>),
    Table(Rc<Table>),
}

/// The values of one combination, in the order of [`Combinations::names`].
pub(crate) type Row<'c> = Vec<Option<&'c ParameterValue>>;

impl Combinations {
    pub(crate) fn names(&self) -> Vec<&str> {
        match self {
            Self::Product(parameters) | Self::Zip(parameters) => {
                parameters.iter().map(|parameter| parameter.name.value.as_str()).collect()
            }
            Self::Table(table) => table.columns.iter().map(String::as_str).collect(),
        }
    }

    /// How many there are; `None` if more than can be counted.
    pub(crate) fn count(&self) -> Option<usize> {
        match self {
            Self::Product(parameters) => {
                parameters.iter().try_fold(1_usize, |count, parameter| count.checked_mul(parameter.values.len()))
            }
            Self::Zip(parameters) => Some(parameters.first().map_or(1, |parameter| parameter.values.len())),
            Self::Table(table) => Some(table.rows.len()),
        }
    }

    /// Fills `row` with the combination of this index, which is below the count.
    pub(crate) fn row<'c>(&'c self, mut index: usize, row: &mut Row<'c>) {
        row.clear();
        match self {
            Self::Product(parameters) => {
                for parameter in parameters.iter().rev() {
                    row.push(Some(&parameter.values[index % parameter.values.len()]));
                    index /= parameter.values.len();
                }
                row.reverse();
            }
            Self::Zip(parameters) => row.extend(parameters.iter().map(|parameter| Some(&parameter.values[index]))),
            Self::Table(table) => row.extend(table.rows[index].iter().map(Option::as_ref)),
        }
    }
}

/// A text with places for values, taken apart once for all combinations.
pub(crate) struct Template {
    parts: Vec<Part>,
}

enum Part {
    Literal(String),
    Value { index: usize, format: Option<Format>, written: String },
}

impl Template {
    /// Finds the `{name}` and `{name:format}` of the known names; everything else is literal.
    pub(crate) fn new(text: &str, names: &[&str]) -> Self {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let (before, after) = rest.split_at(open);
            literal.push_str(before);
            let token = after.find('}').map(|end| &after[..=end]);
            let found = token.and_then(|token| {
                let inner = &token[1..token.len() - 1];
                let (name, format) = inner.split_once(':').map_or((inner, None), |(name, format)| (name, Some(format)));
                let index = names.iter().position(|known| *known == name)?;
                Some((token, Part::Value { index, format: format.and_then(Format::parse), written: token.to_owned() }))
            });
            match found {
                Some((token, part)) => {
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(part);
                    rest = &after[token.len()..];
                }
                None => {
                    literal.push('{');
                    rest = &after[1..];
                }
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Self { parts }
    }

    /// Whether anything changes from one combination to the next.
    pub(crate) fn has_values(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Value { .. }))
    }

    /// The text with the values of one combination. A value that a row of a table does not have
    /// leaves its place as it is written.
    pub(crate) fn render(&self, row: &[Option<&ParameterValue>]) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Value { index, format, written } => match row[*index] {
                    Some(value) => value.write(*format, &mut text),
                    None => text.push_str(written),
                },
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(text: &str) -> Vec<String> {
        let values = parse(text, Path::new(".")).unwrap_or_else(|bad| panic!("{text}: {}", bad.message));
        values.iter().map(|value| render("{v}", value)).collect()
    }

    fn render(template: &str, value: &ParameterValue) -> String {
        Template::new(template, &["v"]).render(&[Some(value)])
    }

    fn parameter(name: &str, text: &str) -> Parameter {
        let report = Report::new("w", "");
        let node = Node::new(Value::Text(text.into()), Default::default());
        Parameter::read(&Text { value: name.into(), ..Text::default() }, &node, Path::new("."), &report).unwrap()
    }

    #[test]
    fn ranges_include_both_ends() {
        assert_eq!(values("1:5"), ["1", "2", "3", "4", "5"]);
        assert_eq!(values(" 0 : 100 : 50 "), ["0", "50", "100"]);
        assert_eq!(values("5:1:-2"), ["5", "3", "1"]);
        assert_eq!(values("{1:3}"), ["1", "2", "3"]);
        assert_eq!(values("0.0:1.0:0.25"), ["0", "0.25", "0.5", "0.75", "1"]);
        assert_eq!(values("0.0:0.3:0.1"), ["0", "0.1", "0.2", "0.30000000000000004"]);
    }

    #[test]
    fn lists_and_single_values_take_their_types() {
        assert_eq!(values("[a, 'b', \"c\", 1, 0.001]"), ["a", "b", "c", "1", "0.001"]);
        assert_eq!(values("[]"), [""; 0]);
        assert_eq!(values("7"), ["7"]);
        assert_eq!(values("train"), ["train"]);
    }

    #[test]
    fn bad_ranges_say_what_is_wrong() {
        for (text, words) in [
            ("1:2:3:4", "not a range"),
            ("1:x", "not a range"),
            ("pytorch:2.4", "not a range"),
            ("10:1", "empty"),
            ("1:10:0", "step"),
            ("0:1:0.1", "not a whole number"),
            ("1:100000000000", "at most"),
            ("0.0:inf:1.0", "never ends"),
            ("0.0:1.0:1e-12", "more than"),
            ("@/nowhere", "cannot read"),
        ] {
            let bad = parse(text, Path::new(".")).err().unwrap_or_else(|| panic!("{text} is bad"));
            assert!(bad.message.contains(words), "{text}: {}", bad.message);
        }
    }

    #[test]
    fn formats_pad_integers_and_round_floats() {
        let (int, float, text) =
            (ParameterValue::Int(7), ParameterValue::Float(0.00012), ParameterValue::Text("x".into()));
        assert_eq!(render("job_{v:03d}.", &int), "job_007.");
        assert_eq!(render("{v:.4f}", &float), "0.0001");
        assert_eq!(render("{v}", &float), "0.00012");
        assert_eq!(render("{v:03d}{v:>9}", &text), "xx");
        assert_eq!(render("{v:3d}", &int), "7");
        assert_eq!(render("{{v}} ${v} {w} {v", &int), "{7} $7 {w} {v");
        assert_eq!(render("{v:099999999d}", &int), "7");
    }

    #[test]
    fn a_product_turns_the_last_parameter_fastest_and_a_zip_pairs() {
        let parameters = vec![parameter("a", "1:2"), parameter("b", "[x,y]")];
        let all = |combinations: &Combinations| {
            let names = combinations.names();
            let template = Template::new("{a}{b}", &names);
            let mut row = Row::new();
            let mut texts = Vec::new();
            for index in 0..combinations.count().unwrap() {
                combinations.row(index, &mut row);
                texts.push(template.render(&row));
            }
            texts
        };
        assert_eq!(all(&Combinations::Product(parameters.clone())), ["1x", "1y", "2x", "2y"]);
        assert_eq!(all(&Combinations::Zip(parameters)), ["1x", "2y"]);
    }

    proptest! {
        #[test]
        fn an_integer_range_counts_from_its_start_by_its_step_up_to_its_end(
            start in -1000_i64..1000, length in 0_i64..500, step in 1_i64..50, down in any::<bool>(),
        ) {
            let sign = if down { -1 } else { 1 };
            let end = start + sign * length;
            let found = parse(&format!("{start}:{end}:{}", sign * step), Path::new(".")).ok().unwrap();
            prop_assert_eq!(found.len() as i64, length / step + 1);
            for (index, value) in found.iter().enumerate() {
                prop_assert_eq!(value, &ParameterValue::Int(start + sign * step * index as i64));
            }
        }

        #[test]
        fn a_product_has_every_combination_once(sizes in prop::collection::vec(1_i64..5, 1..5)) {
            let parameters: Vec<_> =
                sizes.iter().enumerate().map(|(index, size)| parameter(&format!("p{index}"), &format!("1:{size}"))).collect();
            let combinations = Combinations::Product(parameters);
            let names = combinations.names();
            let text: String = names.iter().map(|name| format!("{{{name}}},")).collect();
            let template = Template::new(&text, &names);
            let mut row = Row::new();
            let mut seen = std::collections::BTreeSet::new();
            for index in 0..combinations.count().unwrap() {
                combinations.row(index, &mut row);
                seen.insert(template.render(&row));
            }
            prop_assert_eq!(seen.len() as i64, sizes.iter().product::<i64>());
        }

        #[test]
        fn a_text_without_known_names_stays_as_it_is(text in "[a-z{}:$ 0-9]{0,40}") {
            prop_assert_eq!(Template::new(&text, &["UNKNOWN"]).render(&[None]), text);
        }
    }
}
