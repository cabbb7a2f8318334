//! `type=local,dest=out`: fields of one line, as docker's build flags have them. A field in double quotes may hold commas.

/// Key and value of each field; a field without `=` has an empty key.
///
/// # Errors
/// A sentence: a quote that does not end.
pub fn fields(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    for character in text.chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            other => fields.last_mut().expect("it begins with one").push(other),
        }
    }
    if is_quoted {
        return Err(format!("a quote does not end in `{text}`"));
    }
    let split = |field: String| match field.split_once('=') {
        Some((key, value)) => (key.trim().to_ascii_lowercase(), value.to_owned()),
        None => (String::new(), field),
    };
    Ok(fields.into_iter().filter(|field| !field.is_empty()).map(split).collect())
}

/// `true`, `1`, and also nothing.
///
/// # Errors
/// A sentence: it is no truth value.
pub fn flag(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err(format!("invalid value `{value}` of `{key}`: it has to be true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_apart() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(fields("Type=local,dest=a=b").unwrap(), [pair("type", "local"), pair("dest", "a=b")]);
        assert_eq!(
            fields(r#"type=image,"name=a,b",push"#).unwrap()[1..],
            [pair("name", "a,b"), pair("", "push")]
        );
        assert_eq!(fields("a/b:c").unwrap(), [pair("", "a/b:c")]);
        assert!(fields("type=\"local").is_err());
    }
}
