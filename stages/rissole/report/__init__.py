"""The page one looks at: what is shown of each row, figures, the pipeline, HTML."""
