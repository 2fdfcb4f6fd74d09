"""What operators send to the API, and how they read what it answers."""

import httpx

API = "/apis/v1alpha1"
NS = f"{API}/namespaces/line-3"


def config(name: str, **data: str) -> dict:
    return {"kind": "Config", "apiVersion": "edgewise/v1alpha1", "metadata": {"name": name, "namespace": "line-3"}, "spec": {"data": data}}


def workload(name: str = "inspector", **spec: object) -> dict:
    return {
        "kind": "Workload",
        "apiVersion": "edgewise/v1alpha1",
        "metadata": {"name": name, "namespace": "line-3"},
        "spec": {"artifact": {"name": "inspector", "version": "1"}, "placement": {"everyMatchingDevice": {}}, **spec},
    }


def error(answer: httpx.Response) -> dict:
    return answer.json()["error"]


async def put(fleet, path: str, body: dict, **params: str) -> httpx.Response:
    return await fleet.admin.put(path, json=body, params=params)
