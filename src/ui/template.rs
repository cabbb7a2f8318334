//! The part of Go's templates that people give to `--format`: `{{.Key}}`, `{{json .}}`, `{{json .Key}}`, and `table`
//! before it for aligned columns.

use super::table::Table;
use serde_json::Value;

/// One line per row.
pub fn render(template: &str, rows: impl Iterator<Item = Value>) -> String {
    let text = template.replace("\\t", "\t").replace("\\n", "\n");
    let Some(columns) = text.strip_prefix("table ") else {
        return rows.map(|row| fill(&text, &row) + "\n").collect();
    };
    let heading: Vec<String> = columns.split('\t').map(|c| names(c).to_uppercase()).collect();
    let mut table = Table::new(&heading.iter().map(String::as_str).collect::<Vec<_>>());
    for row in rows {
        table.row(columns.split('\t').map(|c| fill(c, &row)));
    }
    table.render()
}

/// The text with every `{{…}}` replaced; what is not understood gives nothing.
fn fill(text: &str, row: &Value) -> String {
    replace(text, |expression| match expression.strip_prefix("json") {
        Some(path) => find(path.trim(), row).map(ToString::to_string).unwrap_or_default(),
        None => match find(expression, row) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        },
    })
}

fn names(text: &str) -> String {
    replace(text, |expression| {
        expression.trim_start_matches("json").trim().trim_start_matches('.').to_string()
    })
}

fn find<'a>(path: &str, row: &'a Value) -> Option<&'a Value> {
    let path = path.strip_prefix('.')?;
    if path.is_empty() { Some(row) } else { path.split('.').try_fold(row, |value, key| value.get(key)) }
}

fn replace(text: &str, with: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((expression, after)) = inside.split_once("}}") else { break };
        out.push_str(&with(expression.trim()));
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows() -> impl Iterator<Item = Value> {
        [json!({"Name": "web-1", "ExitCode": 3, "Publishers": [1]})].into_iter()
    }

    #[test]
    fn keys_are_filled_in() {
        assert_eq!(render("{{.Name}}: {{ .ExitCode }}", rows()), "web-1: 3\n");
        assert_eq!(render("{{json .Publishers}}", rows()), "[1]\n");
        assert_eq!(render("{{.Nothing}}x", rows()), "x\n");
        assert_eq!(render("{{json .}}", rows()), "{\"Name\":\"web-1\",\"ExitCode\":3,\"Publishers\":[1]}\n");
    }

    #[test]
    fn table_has_a_heading() {
        assert_eq!(render("table {{.Name}}\\t{{.ExitCode}}", rows()), "NAME      EXITCODE\nweb-1     3\n");
    }
}
