.PHONY: demo test lint

demo:
	python3 run.py demo
test:
	python3 run.py test
lint:
	python3 run.py lint
