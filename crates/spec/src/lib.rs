//! Workflow files (YAML, JSON, JSON5, KDL) into wire requests.
